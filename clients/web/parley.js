/**
 * A conversation with a Parley server, from a web page.
 *
 *     const agent = await connect({ url: "https://voice.example/v1", token: "ek_..." });
 *     agent.addEventListener("transcript", () => draw(agent.transcript.entries));
 *     agent.sendText("Hello!");
 *
 * Events: every server event under its own type (its `detail` is the event), "event" for all of them, "state",
 * "transcript", "problem" (it is over), "unheard" (it goes on, without a microphone); the last two with a ParleyError.
 *
 * @typedef {object} Tool
 * @property {string} description
 * @property {object} parameters a JSON schema
 * @property {(args: any) => unknown} run may be async; what it returns is told to the model
 *
 * @typedef {object} Options
 * @property {string | URL} [url] of the server's API, such as https://voice.example/v1; the page's own server without
 * @property {string | (() => Promise<string>)} [token] a client secret (`ek_...`), or an API key where nobody else sees
 *   the page; a function is asked for a fresh one at each connection
 * @property {"webrtc" | "websocket"} [transport]
 * @property {object} [session] as in `session.update`: instructions, voice, turn detection...
 * @property {Record<string, Tool>} [tools]
 * @property {boolean} [microphone] false: type only
 * @property {string} [deviceId] of the microphone
 * @property {RTCIceServer[]} [iceServers]
 * @property {boolean} [reconnect]
 *
 * @typedef {"connecting" | "connected" | "reconnecting" | "closed"} State
 */

import { Level, openContext, openMicrophone } from "./audio.js";
import { ParleyError } from "./errors.js";
import { Lips } from "./lips.js";
import { RtcLink } from "./rtc.js";
import { SocketLink } from "./socket.js";
import { Transcript } from "./transcript.js";

export { ParleyError } from "./errors.js";

const BACKOFF_MS = [300, 1000, 2000, 4000, 8000];
const JITTER_MS = 80; // what a browser's jitter buffer holds back; it reports nothing
const SETTLED_MS = 10_000; // what lasted so long is worth an immediate try again
const GIVE_UP_MS = 180_000; // a server that restarts may have a large model to load

/** That long, or until the network is back or somebody looks at the page again. @param {number} ms @returns {Promise<void>} */
function patience(ms) {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      removeEventListener("online", over);
      document.removeEventListener("visibilitychange", looked);
      resolve();
    };
    const looked = () => document.visibilityState === "visible" && over();
    const timer = setTimeout(over, ms);
    addEventListener("online", over);
    document.addEventListener("visibilitychange", looked);
  });
}

/**
 * @param {Options} [options]
 * @returns {Promise<Agent>} connected; rejects with a ParleyError
 */
export async function connect(options = {}) {
  const agent = new Agent(options);
  await agent.open();
  return agent;
}

export class Agent extends EventTarget {
  /** @param {Options} options */
  constructor(options) {
    super();
    this.options = options;
    this.transcript = new Transcript();
    this.lips = new Lips(options.transport === "websocket" ? 0 : JITTER_MS);
    this.state = /** @type {State} */ ("closed");
    /** @type {AudioContext | undefined} */
    this.context = undefined;
    /** @type {Level | undefined} */
    this.level = undefined;
    this.muted = false;
    /** @type {MediaStream | null} */
    this.microphone = null;
    /** @type {Record<"camera" | "screen", MediaStream | null>} */
    this.shown = { camera: null, screen: null };
    /** @type {Set<string>} responses that wait for functions */
    this.answering = new Set();
    /** @type {Promise<unknown>[]} */
    this.running = [];
    this.speaking = false;
    this.connectedAt = 0;
    this.trials = 0;
  }

  /** Connects; rejects with a ParleyError, after which it may be tried again. */
  async open() {
    this.become("connecting");
    try {
      this.context = openContext();
      this.level = new Level(this.context);
      if (this.options.microphone !== false) await this.listenTo(await openMicrophone(this.options.deviceId));
      await this.context.resume();
      this.link = this.newLink(this.context);
      this.link.mute(this.muted);
      await this.link.open();
      if (this.is("closed")) throw new ParleyError("lost", "hung up while connecting");
    } catch (error) {
      this.release();
      this.become("closed");
      throw error instanceof ParleyError ? error : new ParleyError("failed", String(error));
    }
    this.become("connected");
  }

  /** @param {AudioContext} context */
  newLink(context) {
    const { url = "/v1/", token = "", transport = "webrtc", iceServers = [] } = this.options;
    const base = new URL(String(url).replace(/\/*$/, "/"), document.baseURI);
    const Link = transport === "websocket" ? SocketLink : RtcLink;
    return new Link({
      url: base,
      token: typeof token === "function" ? token : async () => token,
      iceServers,
      context,
      microphone: this.microphone,
      session: this.session(),
      onevent: (event) => this.take(event),
      ondown: () => this.reconnect(),
      onplayed: (item, ms) => this.lips.played(item, ms, performance.now()),
    });
  }

  /** What the session begins with. @returns {object} */
  session() {
    const { session = {}, tools = {} } = this.options;
    /** @type {any} */
    const given = session;
    const input = { transcription: { model: "parley" }, ...given.audio?.input };
    const described = Object.entries(tools).map(([name, { description, parameters }]) => ({
      type: "function",
      name,
      description,
      parameters,
    }));
    return {
      type: "realtime",
      ...given,
      audio: { ...given.audio, input },
      ...(described.length ? { tools: [...(given.tools ?? []), ...described] } : {}),
    };
  }

  // --- what they do ---

  /** @param {object} event of the OpenAI Realtime API */
  send(event) {
    this.link?.send(event);
  }

  /** Says something in writing, and asks for an answer. @param {string} text */
  sendText(text) {
    if (this.speaking) this.interrupt();
    const content = [{ type: "input_text", text }];
    this.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.send({ type: "response.create" });
  }

  /** @param {boolean} on */
  mute(on) {
    this.muted = on;
    this.link?.mute(on);
    this.dispatchEvent(new CustomEvent("mute", { detail: on }));
  }

  /** Stops what is being said. */
  interrupt() {
    this.send({ type: "response.cancel" });
    this.link?.flush();
  }

  /** @param {boolean} on @returns {Promise<MediaStream | null>} for a preview */
  camera(on) {
    return this.show("camera", on, () => navigator.mediaDevices.getUserMedia({ video: { width: 640, frameRate: 15 } }));
  }

  /** @param {boolean} on @returns {Promise<MediaStream | null>} */
  screen(on) {
    return this.show("screen", on, () => navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 5 } }));
  }

  /**
   * @param {"camera" | "screen"} which
   * @param {boolean} on
   * @param {() => Promise<MediaStream>} open
   */
  async show(which, on, open) {
    const before = this.shown[which];
    this.shown[which] = on ? await open() : null;
    const track = this.shown[which]?.getVideoTracks()[0] ?? null;
    track?.addEventListener("ended", () => this.show(which, false, open));
    await this.link?.show(which, track);
    // Only now: a track that ends while it is sent is black at its end, and the model would see that.
    for (const old of before?.getTracks() ?? []) old.stop();
    this.dispatchEvent(new CustomEvent("show", { detail: { which, stream: this.shown[which] } }));
    return this.shown[which];
  }

  /** @param {string} [deviceId] of another microphone; the browser's choice without */
  async useMicrophone(deviceId) {
    this.options.deviceId = deviceId;
    if (!this.microphone) return;
    const before = this.microphone;
    const stream = await openMicrophone(deviceId);
    await this.listenTo(stream);
    await this.link?.replaceMicrophone(stream);
    for (const track of before.getTracks()) track.stop();
  }

  /** Unplugged, or taken away: on with another, or they are told. @param {MediaStream} stream */
  async lostMicrophone(stream) {
    if (stream !== this.microphone) return;
    await this.useMicrophone().catch((error) => this.dispatchEvent(new CustomEvent("unheard", { detail: error })));
  }

  /** @returns {number} how loud they are, 0 to 1 */
  inputLevel() {
    return this.muted || !this.level ? 0 : this.level.read();
  }

  /** @returns {number} how loud the reply is, 0 to 1 */
  outputLevel() {
    return this.link?.level.read() ?? 0;
  }

  close() {
    this.become("closed");
    this.release();
  }

  // --- what comes ---

  /** @param {any} event */
  take(event) {
    if (event.type === "response.created" || event.type === "output_audio_buffer.started") this.speaking = true;
    if (event.type === "response.done" || event.type === "output_audio_buffer.stopped") this.speaking = false;
    if (event.type === "output_audio_buffer.cleared") this.speaking = false;
    this.lips.take(event, performance.now());
    if (this.transcript.take(event)) this.dispatchEvent(new CustomEvent("transcript"));
    if (event.type === "response.output_item.done" && event.item.type === "function_call") this.run(event);
    if (event.type === "response.done") this.answer(event.response.id);
    if (event.type === "error" && event.error?.code === "server_full") this.fail(new ParleyError("full"));
    this.dispatchEvent(new CustomEvent("event", { detail: event }));
    this.dispatchEvent(new CustomEvent(event.type, { detail: event }));
  }

  /** Runs a function that the model called. @param {any} event */
  run({ response_id, item }) {
    const tool = this.options.tools?.[item.name];
    if (!tool) return;
    this.answering.add(response_id);
    const work = (async () => tool.run(JSON.parse(item.arguments || "{}")))()
      .catch((error) => ({ error: String(error) }))
      .then((result) => {
        const output = typeof result === "string" ? result : JSON.stringify(result ?? null);
        this.send({
          type: "conversation.item.create",
          item: { type: "function_call_output", call_id: item.call_id, output },
        });
      });
    this.running.push(work);
  }

  /** The model goes on when all that it asked for is there. @param {string} response */
  async answer(response) {
    if (!this.answering.delete(response)) return;
    await Promise.all(this.running.splice(0));
    this.send({ type: "response.create" });
  }

  // --- the line ---

  async reconnect() {
    if (this.state !== "connected") return;
    if (this.options.reconnect === false) return this.fail(new ParleyError("lost"));
    this.become("reconnecting");
    this.speaking = false;
    let last = new ParleyError("lost");
    const since = performance.now();
    if (since - this.connectedAt > SETTLED_MS) this.trials = 0;
    while (performance.now() - since < GIVE_UP_MS) {
      const pause = BACKOFF_MS[Math.min(this.trials++, BACKOFF_MS.length - 1)];
      await patience(pause * (0.75 + Math.random() / 2));
      if (this.is("closed") || !this.link) return;
      try {
        const same = await this.link.open();
        if (!same) this.remind();
        for (const which of /** @type {("camera" | "screen")[]} */ (["camera", "screen"])) {
          const track = this.shown[which]?.getVideoTracks()[0];
          if (track) await this.link.show(which, track);
        }
        this.become("connected");
        return;
      } catch (error) {
        last = error instanceof ParleyError ? error : new ParleyError("lost", String(error));
        if (last.problem === "key") break;
      }
    }
    this.fail(last.problem === "offline" ? new ParleyError("lost") : last);
  }

  /** A new session knows nothing: it is told what was said. */
  remind() {
    const items = this.transcript.items();
    this.transcript.clear();
    for (const item of items) this.send({ type: "conversation.item.create", item });
  }

  /** @param {ParleyError} problem */
  fail(problem) {
    this.close();
    this.dispatchEvent(new CustomEvent("problem", { detail: problem }));
  }

  /** @param {MediaStream} stream */
  async listenTo(stream) {
    this.microphone = stream;
    stream.getAudioTracks()[0]?.addEventListener("ended", () => this.lostMicrophone(stream));
    this.meter?.disconnect();
    if (!this.context || !this.level) return;
    this.meter = this.context.createMediaStreamSource(stream);
    this.meter.connect(this.level.node);
  }

  release() {
    this.link?.close();
    this.link = undefined;
    for (const stream of [this.microphone, this.shown.camera, this.shown.screen]) {
      for (const track of stream?.getTracks() ?? []) track.stop();
    }
    this.microphone = this.shown.camera = this.shown.screen = null;
    this.context?.close().catch(() => {});
    this.context = this.level = this.meter = undefined;
  }

  /** @param {State} state */
  is(state) {
    return this.state === state;
  }

  /** @param {State} state */
  become(state) {
    if (this.state === state) return;
    this.state = state;
    if (state === "connected") this.connectedAt = performance.now();
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
