/** The WebSocket way to a server: events and audio in one stream, played here and reported as it is played. */

import { Level, Player, Recorder, RATE_HZ, fromBase64, toBase64 } from "./audio.js";
import { ParleyError, refusal } from "./errors.js";
import { ANSWER_MS, authorization } from "./link.js";

const PING_MS = 5000;
const UNANSWERED = 2; // pings: a browser learns late of a network that is gone, or never
const FRAME_MS = 500;
const FRAME_WIDTH = 640;
const FLUSH_ON = ["input_audio_buffer.speech_started", "conversation.item.truncated"];

export class SocketLink {
  /** @param {import("./link.js").LinkOptions} options */
  constructor(options) {
    this.options = options;
    this.muted = false;
    this.level = new Level(options.context);
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {Recorder | null} */
    this.recorder = null;
    /** @type {Player | null} */
    this.player = null;
    /** @type {Record<"camera" | "screen", number>} */
    this.timers = { camera: 0, screen: 0 };
    this.token = ""; // with which the session may be come back to
    this.count = 0; // messages of the session that came
    this.unanswered = 0; // pings
    // A page that is left says goodbye: else the server would wait for it to come back.
    this.leave = (/** @type {PageTransitionEvent} */ { persisted }) => persisted || this.close();
    addEventListener("pagehide", this.leave);
  }

  /** @returns {Promise<boolean>} whether the session is the one we had */
  async open() {
    const { context, microphone } = this.options;
    if (microphone && !this.recorder) this.recorder = await Recorder.open(context, microphone);
    if (!this.player) {
      this.player = await Player.open(context, (item, samples) => this.report(item, samples));
      this.player.node.connect(this.level.node);
    }
    const same = await this.connect();
    this.recorder?.flow((pcm) => this.hear(pcm));
    return same;
  }

  async connect() {
    const url = new URL("realtime", this.options.url);
    url.protocol = url.protocol.replace("http", "ws");
    const token = await this.options.token();
    const key = token ? [`openai-insecure-api-key.${token}`] : [];
    const resume = this.token ? `parley-resume.${this.token}.${this.count}` : "parley-resume";
    const socket = new WebSocket(url, ["realtime", resume, ...key]);
    this.socket = socket;
    let same = false;
    try {
      same = await this.greeted(socket);
    } catch {
      this.socket = null;
      throw await this.why();
    }
    socket.onclose = () => this.down(socket);
    this.watch(socket);
    if (!same) this.send({ type: "session.update", session: this.options.session });
    return same;
  }

  /** Gone, and not closed by us. @param {WebSocket} socket */
  down(socket) {
    if (this.socket !== socket) return;
    this.socket = null;
    this.recorder?.hold();
    this.flush(); // the server cuts what is being said, too
    this.options.ondown();
  }

  /** Asks whether anybody is there, of a server that answers. @param {WebSocket} socket */
  watch(socket) {
    this.unanswered = 0;
    const timer = setInterval(() => {
      if (this.socket !== socket || !this.token) return clearInterval(timer);
      if (this.unanswered++ < UNANSWERED) return this.send({ type: "parley.ping" });
      socket.close();
      this.down(socket);
    }, PING_MS);
  }

  /**
   * The first message says whether the session is the one we had.
   * @param {WebSocket} socket
   * @returns {Promise<boolean>} rejects when the socket can't be opened
   */
  greeted(socket) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => socket.close(), ANSWER_MS);
      socket.onerror = socket.onclose = () => {
        clearTimeout(timer);
        reject();
      };
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        const same = event.type === "parley.session.resumed";
        clearTimeout(timer);
        socket.onmessage = (message) => this.receive(JSON.parse(message.data));
        this.count = same ? event.count : 0;
        if (!same) this.token = "";
        if (!same) this.receive(event);
        resolve(same);
      };
    });
  }

  /** @param {any} event */
  receive(event) {
    this.count++;
    this.unanswered = 0;
    if (event.type === "parley.session.resumable") this.token = event.token;
    this.take(event);
  }

  /** A browser doesn't say why a WebSocket was refused: ask. @returns {Promise<ParleyError>} */
  async why() {
    try {
      const headers = await authorization(this.options.token);
      const health = await fetch(new URL("../healthz", this.options.url), { headers });
      if (!health.ok) {
        const { status } = await health.json();
        return new ParleyError(status === "loading" ? "loading" : "full", status);
      }
      const models = await fetch(new URL("models", this.options.url), { headers });
      return models.ok ? new ParleyError("failed", "the WebSocket was refused") : await refusal(models);
    } catch (error) {
      return new ParleyError("offline", String(error));
    }
  }

  /** @param {any} event */
  take(event) {
    if (event.type === "response.output_audio.delta") this.player?.play(event.item_id, fromBase64(event.delta));
    else if (event.type === "parley.playout.pause") this.player?.pause(true);
    else if (event.type === "parley.playout.resume") this.player?.pause(false);
    else if (FLUSH_ON.includes(event.type)) this.flush();
    this.options.onevent(event);
  }

  /** @param {Int16Array} pcm */
  hear(pcm) {
    this.send({ type: "input_audio_buffer.append", audio: toBase64(this.muted ? new Int16Array(pcm.length) : pcm) });
  }

  /**
   * @param {string} item
   * @param {number} samples at 24 kHz
   */
  report(item, samples) {
    const played_ms = (samples * 1000) / RATE_HZ;
    this.send({ type: "parley.playback", item_id: item, played_ms });
    this.options.onplayed(item, played_ms);
  }

  /** @param {object} event */
  send(event) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  /** What is being said is not to be heard. */
  flush() {
    this.player?.flush();
  }

  /**
   * Frames of a camera go as pictures, twice a second.
   * @param {"camera" | "screen"} which
   * @param {MediaStreamTrack | null} track
   */
  async show(which, track) {
    clearInterval(this.timers[which]);
    if (!track) return;
    const video = document.createElement("video");
    video.muted = true;
    video.srcObject = new MediaStream([track]);
    await video.play();
    const canvas = document.createElement("canvas");
    this.timers[which] = window.setInterval(() => this.frame(video, canvas), FRAME_MS);
  }

  /**
   * @param {HTMLVideoElement} video
   * @param {HTMLCanvasElement} canvas
   */
  frame(video, canvas) {
    if (!video.videoWidth) return;
    const scale = Math.min(1, FRAME_WIDTH / video.videoWidth);
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d")?.drawImage(video, 0, 0, canvas.width, canvas.height);
    this.send({ type: "input_image_buffer.append", image: canvas.toDataURL("image/jpeg", 0.8).split(",")[1] });
  }

  /** @param {boolean} on */
  mute(on) {
    this.muted = on;
  }

  /** @param {MediaStream} stream another microphone */
  async replaceMicrophone(stream) {
    this.options.microphone = stream;
    this.recorder?.close();
    this.recorder = await Recorder.open(this.options.context, stream);
    this.recorder.flow((pcm) => this.hear(pcm));
  }

  close() {
    removeEventListener("pagehide", this.leave);
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
    this.recorder?.close();
    this.player?.close();
    for (const timer of Object.values(this.timers)) clearInterval(timer);
  }
}
