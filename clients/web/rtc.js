/** The WebRTC way to a server: one peer connection and the data channel `oai-events`. */

import { Level, Recorder, toBase64 } from "./audio.js";
import { ParleyError, refusal } from "./errors.js";
import { ANSWER_MS, authorization } from "./link.js";

const GATHER_MS = 1500;
const GONE_MS = 4000;

export class RtcLink {
  /** @param {import("./link.js").LinkOptions} options */
  constructor(options) {
    this.options = options;
    this.location = "";
    /** @type {Record<string, string>} of the last request that was made */
    this.headers = {};
    this.muted = false;
    this.level = new Level(options.context);
    this.speaker = new Audio();
    this.speaker.autoplay = true;
    /** @type {RTCPeerConnection | null} */
    this.peer = null;
    /** @type {Record<"camera" | "screen", MediaStreamTrack | null>} */
    this.video = { camera: null, screen: null };
    // A page that is left hangs up: else the server would wait for it to come back.
    this.leave = (/** @type {PageTransitionEvent} */ { persisted }) => persisted || this.close();
    addEventListener("pagehide", this.leave);
  }

  /** Connects; again after `ondown` it goes on with the same session, if that still waits. @returns {Promise<boolean>} whether it is the same */
  async open() {
    const recorder = await this.record();
    try {
      const same = await this.connect();
      await this.firstWords(recorder);
      return same;
    } catch (error) {
      this.hangUp();
      throw error;
    } finally {
      recorder?.close();
    }
  }

  /** What is said while we connect is kept, and sent first. @returns {Promise<Recorder | null>} */
  async record() {
    const { microphone, context } = this.options;
    return microphone && Recorder.open(context, microphone).catch(() => null);
  }

  async connect() {
    const peer = new RTCPeerConnection({ iceServers: this.options.iceServers });
    this.peer = peer;
    this.audio = peer.addTransceiver("audio", { direction: "sendrecv" });
    this.sections = {
      camera: peer.addTransceiver("video", { direction: "sendonly" }),
      screen: peer.addTransceiver("video", { direction: "sendonly" }),
    };
    peer.ontrack = ({ track }) => this.listen(track);
    this.channel = peer.createDataChannel("oai-events");
    this.channel.onmessage = ({ data }) => this.options.onevent(JSON.parse(data));
    const opened = this.opened(peer, this.channel);
    opened.catch(() => {});
    await peer.setLocalDescription();
    await gathered(peer);
    const [sdp, same] = await this.exchange(peer.localDescription?.sdp ?? "");
    await peer.setRemoteDescription({ type: "answer", sdp });
    await opened;
    this.watch(peer);
    await this.sections.camera.sender.replaceTrack(this.video.camera);
    await this.sections.screen.sender.replaceTrack(this.video.screen);
    return same;
  }

  /** @param {string} offer @returns {Promise<[string, boolean]>} the answer, and whether the session is the one we had */
  async exchange(offer) {
    if (this.location) {
      const answer = await this.post(this.location, offer).catch(() => null);
      if (answer?.ok) return [await answer.text(), true];
    }
    const form = new FormData();
    form.set("sdp", offer);
    form.set("session", JSON.stringify(this.options.session));
    const answer = await this.post("realtime/calls", form);
    if (!answer.ok) throw await refusal(answer);
    const path = new URL(answer.headers.get("Location") ?? "", this.options.url).pathname;
    this.location = path.slice(path.indexOf("realtime/calls"));
    return [await answer.text(), false];
  }

  /**
   * @param {string} path below the API
   * @param {string | FormData} body
   */
  async post(path, body) {
    this.headers = await authorization(this.options.token);
    const headers = typeof body === "string" ? { ...this.headers, "Content-Type": "application/sdp" } : this.headers;
    const signal = AbortSignal.timeout(ANSWER_MS);
    try {
      return await fetch(new URL(path, this.options.url), { method: "POST", headers, body, signal });
    } catch (error) {
      throw new ParleyError("offline", String(error));
    }
  }

  /**
   * @param {RTCPeerConnection} peer
   * @param {RTCDataChannel} channel
   * @returns {Promise<void>}
   */
  opened(peer, channel) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new ParleyError("offline", "no media path to the server")), ANSWER_MS);
      channel.onopen = () => {
        clearTimeout(timer);
        resolve();
      };
      peer.onconnectionstatechange = () => {
        if (peer.connectionState !== "failed") return;
        clearTimeout(timer);
        reject(new ParleyError("offline", "no media path to the server"));
      };
    });
  }

  /** @param {RTCPeerConnection} peer */
  watch(peer) {
    let timer = 0;
    const down = () => {
      clearTimeout(timer);
      if (this.peer !== peer) return;
      this.hangUp();
      this.options.ondown();
    };
    if (this.channel) this.channel.onclose = down;
    peer.onconnectionstatechange = () => {
      clearTimeout(timer);
      if (peer.connectionState === "failed" || peer.connectionState === "closed") down();
      if (peer.connectionState === "disconnected") timer = window.setTimeout(down, GONE_MS);
    };
  }

  /** @param {Recorder | null} recorder */
  async firstWords(recorder) {
    const track = this.options.microphone?.getAudioTracks()[0] ?? null;
    const kept = this.muted ? [] : (recorder?.kept.splice(0) ?? []);
    const pieces = 25; // half a second: below what a data channel takes in one message
    for (let at = 0; at < kept.length; at += pieces) {
      const pcm = Int16Array.from(kept.slice(at, at + pieces).flatMap((piece) => [...piece]));
      this.send({ type: "input_audio_buffer.append", audio: toBase64(pcm) });
    }
    await this.audio?.sender.replaceTrack(track);
  }

  /** @param {MediaStreamTrack} track */
  listen(track) {
    const stream = new MediaStream([track]);
    this.speaker.srcObject = stream;
    this.speaker.play().catch(() => {}); // plays at the next touch, where the browser insists on one
    this.heard?.disconnect();
    this.heard = this.options.context.createMediaStreamSource(stream);
    this.heard.connect(this.level.node);
  }

  /** @param {object} event */
  send(event) {
    if (this.channel?.readyState === "open") this.channel.send(JSON.stringify(event));
  }

  /** What is being said is not to be heard. */
  flush() {
    this.send({ type: "output_audio_buffer.clear" });
  }

  /**
   * @param {"camera" | "screen"} which
   * @param {MediaStreamTrack | null} track
   */
  async show(which, track) {
    this.video[which] = track;
    await this.sections?.[which].sender.replaceTrack(track);
  }

  /** @param {boolean} on */
  mute(on) {
    this.muted = on;
    for (const track of this.options.microphone?.getAudioTracks() ?? []) track.enabled = !on;
  }

  /** @param {MediaStream} stream another microphone */
  async replaceMicrophone(stream) {
    this.options.microphone = stream;
    this.mute(this.muted);
    await this.audio?.sender.replaceTrack(stream.getAudioTracks()[0] ?? null);
  }

  hangUp() {
    const peer = this.peer;
    this.peer = null;
    this.heard?.disconnect();
    peer?.close();
  }

  close() {
    removeEventListener("pagehide", this.leave);
    if (this.location) {
      const url = new URL(`${this.location}/hangup`, this.options.url);
      // At once and kept alive, with the token of before: a page that is being left waits for nothing.
      fetch(url, { method: "POST", headers: this.headers, keepalive: true }).catch(() => {});
    }
    this.location = "";
    this.hangUp();
    this.speaker.srcObject = null;
  }
}

/** @param {RTCPeerConnection} peer @returns {Promise<void>} */
function gathered(peer) {
  return new Promise((resolve) => {
    const done = () => peer.iceGatheringState === "complete" && resolve();
    peer.addEventListener("icegatheringstatechange", done);
    setTimeout(resolve, GATHER_MS);
    done();
  });
}
