/**
 * `<parley-agent>`: a conversation, in one tag.
 *
 *     <script type="module" src="https://voice.example/parley-agent.js"></script>
 *     <parley-agent url="https://voice.example/v1" heading="Reception"></parley-agent>
 *
 * Attributes: url, token, transport (webrtc | websocket), heading, greeting, voice, instructions, push-to-talk,
 * no-captions, avatar (a face that speaks), theme (light | dark), lang (see words.js; it follows changes). Properties:
 * `agent` (see parley.js, while connected), `tools`, `session`, `getToken` (async, instead of the attribute),
 * `iceServers`. Events: those of the agent, which bubble from the element: "state", "event", "problem", "unheard".
 * Colours: `--parley-accent` and its neighbours in agent-style.js; parts: `::part(talk)`...
 */

import { Agent, ParleyError } from "./parley.js";
import { Avatar } from "./avatar.js";
import { Log } from "./agent-log.js";
import { Hold } from "./hold.js";
import { ICONS, VIEW } from "./agent-view.js";
import { STYLE } from "./agent-style.js";
import { wordsOf } from "./words.js";

/** @typedef {import("./transcript.js").Transcript} Transcript */

const CAPTION = 110; // characters: two lines
const BESIDE_STREAM = ["state", "event", "problem", "unheard"];

export class ParleyAgent extends HTMLElement {
  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = `<style>${STYLE}</style>${VIEW}`;
    /** @param {string} selector @returns {any} */
    this.$ = (selector) => root.querySelector(selector);
    /** @type {Agent | null} */
    this.agent = null;
    /** @type {Record<string, import("./parley.js").Tool>} */
    this.tools = {};
    /** @type {object} */
    this.session = {};
    /** @type {(() => Promise<string>) | null} */
    this.getToken = null;
    /** @type {RTCIceServer[]} */
    this.iceServers = [];
    this.key = "";
    this.hearing = false;
    this.thinking = false;
    this.caption = "";
    /** @type {ParleyError | null} */
    this.problem = null;
    /** @type {Transcript | null} */
    this.transcript = null;
    const mayTalk = () => this.pushToTalk && this.agent?.state === "connected";
    this.hold = new Hold(this.$(".talk"), mayTalk, (on) => this.talk(on));
    this.log = new Log(this.$(".log"));
    this.avatar = new Avatar(this.$(".avatar"));
  }

  static observedAttributes = ["lang", "avatar", "transport"];

  /** Its words, in its language or the page's. */
  get words() {
    return wordsOf(this.getAttribute("lang") ?? document.documentElement.lang);
  }

  /** @param {string} name */
  attributeChangedCallback(name) {
    if (name === "transport") this.$(".transport").value = this.getAttribute("transport") ?? "webrtc";
    else if (this.isConnected) this.speak();
  }

  connectedCallback() {
    this.$("h2").textContent = this.getAttribute("heading") ?? "Parley";
    this.$(".push").checked = this.hasAttribute("push-to-talk");
    this.$(".captions").checked = !this.hasAttribute("no-captions");
    this.wire();
    this.speak();
  }

  disconnectedCallback() {
    this.hangUp();
  }

  /** All words, in the language of now. */
  speak() {
    const { words } = this;
    for (const part of this.shadowRoot?.querySelectorAll("[data-word]") ?? []) {
      const word = /** @type {any} */ (words)[/** @type {HTMLElement} */ (part).dataset.word ?? ""];
      if (part.matches("button.tool-button, .log")) {
        part.setAttribute("aria-label", word);
        part.setAttribute("title", word);
      } else if (part.matches("input")) part.setAttribute("placeholder", word);
      else part.textContent = word;
    }
    this.draw();
    this.drawLog();
    if (this.problem) this.explain(this.problem);
  }

  /** What the buttons do. */
  wire() {
    this.$(".talk").onclick = () => this.pressed();
    this.$(".again").onclick = () => (this.agent ? this.useMicrophone() : this.start());
    this.$(".key").onsubmit = (/** @type {Event} */ event) => this.useKey(event);
    this.$(".say").onsubmit = (/** @type {Event} */ event) => this.say(event);
    this.$(".mute").onclick = () => this.agent?.mute(!this.agent.muted);
    this.$(".camera").onclick = () => this.show("camera");
    this.$(".screen").onclick = () => this.show("screen");
    this.$(".end").onclick = () => this.hangUp();
    this.$(".adjust").onclick = () => this.toggleSettings();
    this.$(".microphones").onchange = (/** @type {any} */ event) => this.useMicrophone(event.target.value);
    this.$(".push").onchange = () => this.useTurns();
    this.$(".captions").onchange = () => this.draw();
    this.$(".transport").onchange = () => this.agent && this.restart();
  }

  get pushToTalk() {
    return this.$(".push").checked;
  }

  // --- a conversation ---

  /** Connects. Called by the button; a page may call it too, best on a click. @param {boolean} [microphone] */
  async start(microphone = true) {
    if (this.agent) return;
    this.explain(null);
    const token = this.key || this.getToken || (this.getAttribute("token") ?? "");
    const agent = new Agent({
      url: this.getAttribute("url") ?? "/v1/",
      token,
      transport: this.$(".transport").value,
      session: this.describe(),
      tools: this.tools,
      microphone,
      iceServers: this.iceServers,
      deviceId: this.$(".microphones").value || undefined,
    });
    this.agent = agent;
    this.transcript = agent.transcript;
    this.follow(agent);
    this.drawLog();
    try {
      if (this.pushToTalk) agent.mute(true);
      await agent.open();
      this.drawDevices();
      this.loop(agent);
    } catch (error) {
      if (this.agent !== agent) return; // hung up meanwhile
      this.agent = null;
      this.explain(error instanceof ParleyError ? error : new ParleyError("failed", String(error)));
    }
    this.draw();
  }

  /** What the session begins with, in the words of `session.update`. @returns {object} */
  describe() {
    /** @type {any} */
    const given = this.session;
    const voice = this.getAttribute("voice");
    const instructions = this.getAttribute("instructions");
    const input = this.pushToTalk ? { ...given.audio?.input, turn_detection: null } : given.audio?.input;
    const face = this.hasAttribute("avatar") ? { parley_visemes: true } : {};
    const output = { ...given.audio?.output, ...face, ...(voice ? { voice } : {}) };
    return {
      ...given,
      ...(instructions ? { instructions } : {}),
      audio: { ...given.audio, ...(input ? { input } : {}), output },
    };
  }

  /** @param {Agent} agent */
  follow(agent) {
    agent.addEventListener("state", () => {
      if (agent.state !== "connected") this.hold.drop(); // the button takes no keys then
      this.draw();
    });
    agent.addEventListener("mute", () => this.draw());
    agent.addEventListener("transcript", () => this.drawLog());
    agent.addEventListener("show", (/** @type {any} */ event) => this.preview(event.detail));
    agent.addEventListener("problem", (/** @type {any} */ event) => {
      this.agent = null;
      this.explain(event.detail);
      this.draw();
    });
    agent.addEventListener("unheard", (/** @type {any} */ event) => this.explain(event.detail));
    agent.addEventListener("event", (/** @type {any} */ event) => this.notice(event.detail));
    for (const name of BESIDE_STREAM) {
      agent.addEventListener(name, (/** @type {any} */ event) =>
        this.dispatchEvent(new CustomEvent(name, { detail: event.detail, bubbles: true, composed: true })),
      );
    }
  }

  /** @param {any} event of the server */
  notice(event) {
    const { type } = event;
    if (type === "input_audio_buffer.speech_started") this.hearing = true;
    else if (type === "input_audio_buffer.speech_stopped") this.hearing = false;
    else if (type === "response.created") [this.thinking, this.caption] = [true, ""];
    else if (type === "response.output_audio_transcript.delta" || type === "response.output_text.delta") {
      this.thinking = false;
      this.caption += event.delta;
    } else if (type === "response.done") this.thinking = false;
    else return;
    this.draw();
  }

  hangUp() {
    this.agent?.close();
    this.agent = null;
    this.hearing = this.thinking = false;
    this.caption = "";
    this.preview({ which: "camera", stream: null });
    this.draw();
  }

  /** As before the first word. */
  reset() {
    this.hangUp();
    this.transcript = null;
    this.explain(null);
    this.$(".settings").hidden = true;
    this.drawLog();
  }

  async restart() {
    this.hangUp();
    await this.start();
  }

  // --- what they do ---

  pressed() {
    if (!this.agent) this.start();
    else if (this.pushToTalk) return; // see `talk`
    else if (this.agent.speaking) this.agent.interrupt();
    else this.agent.mute(!this.agent.muted);
  }

  /** @param {boolean} on the button or the space bar is held down */
  talk(on) {
    if (!this.agent) return;
    if (on) {
      if (this.agent.speaking) this.agent.interrupt();
      this.agent.send({ type: "input_audio_buffer.clear" });
      this.agent.mute(false);
    } else {
      this.agent.mute(true);
      this.agent.send({ type: "input_audio_buffer.commit" });
      this.agent.send({ type: "response.create" });
    }
  }

  useTurns() {
    const turn_detection = this.pushToTalk ? null : { type: "server_vad" };
    this.agent?.send({ type: "session.update", session: { type: "realtime", audio: { input: { turn_detection } } } });
    this.agent?.mute(this.pushToTalk);
    this.draw();
  }

  /** @param {Event} event */
  async say(event) {
    event.preventDefault();
    const text = this.$("#say").value.trim();
    if (!text) return;
    this.$("#say").value = "";
    if (!this.agent) await this.start(false);
    this.agent?.sendText(text);
  }

  /** @param {Event} event */
  useKey(event) {
    event.preventDefault();
    this.key = this.$("#key").value;
    this.start();
  }

  /** @param {"camera" | "screen"} which */
  async show(which) {
    const on = this.$(`.${which}`).getAttribute("aria-pressed") !== "true";
    try {
      await this.agent?.[which](on);
    } catch (error) {
      this.$(".status").textContent = which === "camera" ? this.words.noCamera : this.words.noScreen;
    }
  }

  /** @param {string} [deviceId] */
  async useMicrophone(deviceId) {
    if (!this.agent) return;
    this.explain(null);
    await this.agent.useMicrophone(deviceId).catch((error) => this.explain(error));
  }

  toggleSettings() {
    const open = this.$(".settings").hidden;
    this.$(".settings").hidden = !open;
    this.$(".adjust").setAttribute("aria-expanded", String(open));
    if (open) this.drawDevices();
  }

  // --- what they see ---

  draw() {
    const agent = this.agent;
    const state = agent?.state ?? "closed";
    const busy = state === "connecting" || state === "reconnecting";
    const [label, glyph] = this.label(state);
    const talk = this.$(".talk");
    talk.innerHTML = `${glyph}<span>${label}</span>`;
    talk.className = `talk${busy ? " busy" : ""}${state === "connected" && agent?.muted && !this.hold.by ? " quiet" : ""}`;
    talk.disabled = busy;
    this.$(".status").textContent = busy ? this.words[state] : agent ? this.doing(agent) : "";
    this.$(".caption").textContent = this.$(".captions").checked ? latest(this.caption) : "";
    for (const name of ["mute", "camera", "screen", "end"]) this.$(`.${name}`).hidden = state !== "connected";
    this.$(".screen").hidden ||= !navigator.mediaDevices?.getDisplayMedia;
    this.$(".mute").hidden ||= this.pushToTalk;
    this.$(".mute").setAttribute("aria-pressed", String(Boolean(agent?.muted)));
    this.$(".avatar").toggleAttribute("hidden", !this.hasAttribute("avatar"));
  }

  /** @param {string} state @returns {[string, string]} the button's words and picture */
  label(state) {
    const { words } = this;
    if (state === "connecting" || state === "reconnecting") return [words.wait, ICONS.talk];
    if (state === "closed") return [words.start, ICONS.talk];
    if (this.agent?.speaking) return [words.stop, ICONS.stop];
    if (this.pushToTalk) return [this.hold.by ? words.listening : words.hold, ICONS.talk];
    return this.agent?.muted ? [words.unmute, ICONS.mute] : [words.listening, ICONS.talk];
  }

  /** @param {Agent} agent @returns {string} */
  doing(agent) {
    const { words } = this;
    if (this.hearing) return words.hearing;
    if (this.thinking) return words.thinking;
    if (agent.speaking) return words.speaking;
    return agent.muted && !this.hold.by ? words.muted : words.listening;
  }

  drawLog() {
    const greeting = this.getAttribute("greeting") ?? this.words.greeting;
    this.log.draw(this.transcript?.entries ?? [], this.words, greeting);
  }

  /** @param {{which: string, stream: MediaStream | null}} shown */
  preview({ which, stream }) {
    this.$(`.${which}`).setAttribute("aria-pressed", String(Boolean(stream)));
    const video = this.$(".preview");
    video.srcObject = stream;
    video.hidden = !stream;
    video.classList.toggle("mirror", which === "camera");
  }

  /** @param {ParleyError | null} problem */
  explain(problem) {
    const panel = this.$(".problem");
    this.problem = problem;
    panel.hidden = !problem;
    if (!problem) return;
    const { problems } = this.words;
    const [title, advice] = problems[problem.problem] ?? problems.failed;
    this.$(".problem strong").textContent = title;
    this.$(".problem p").textContent = advice;
    this.$(".key").hidden = problem.problem !== "key";
    panel.dataset.problem = problem.problem;
    console.warn("parley:", problem.message);
  }

  async drawDevices() {
    const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    const chosen = this.$(".microphones").value;
    const options = devices
      .filter((device) => device.kind === "audioinput")
      .map((device, n) => new Option(device.label || `Microphone ${n + 1}`, device.deviceId));
    this.$(".microphones").replaceChildren(...options);
    if (options.some((option) => option.value === chosen)) this.$(".microphones").value = chosen;
  }

  /** The ring follows whoever speaks, the face our words. @param {Agent} agent */
  loop(agent) {
    if (this.agent !== agent) return this.avatar.rest();
    const level = Math.max(agent.speaking ? agent.outputLevel() : 0, agent.inputLevel());
    this.$(".talk").style.setProperty("--level", level.toFixed(3));
    this.avatar.draw(agent.lips.shape(performance.now()));
    requestAnimationFrame(() => this.loop(agent));
  }
}

/** The end of what is being said, from a word on. @param {string} text */
function latest(text) {
  return text.length > CAPTION ? text.slice(-CAPTION).replace(/^\S*\s/, "… ") : text;
}

customElements.define("parley-agent", ParleyAgent);
