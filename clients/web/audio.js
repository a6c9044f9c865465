/** The page's ears and mouth: microphone, level meters, and the worklets of the WebSocket path. */

import { ParleyError, microphoneError } from "./errors.js";

export const RATE_HZ = 24000;

/**
 * @param {string} [deviceId]
 * @returns {Promise<MediaStream>}
 */
export async function openMicrophone(deviceId) {
  if (!navigator.mediaDevices?.getUserMedia) throw new ParleyError("insecure");
  const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: deviceId ? { ...wanted, deviceId: { exact: deviceId } } : wanted,
    });
  } catch (error) {
    throw microphoneError(error);
  }
}

/** @returns {AudioContext} at 24 kHz where the browser lets us, so that nothing is resampled twice */
export function openContext() {
  try {
    return new AudioContext({ sampleRate: RATE_HZ, latencyHint: "interactive" });
  } catch {
    return new AudioContext({ latencyHint: "interactive" });
  }
}

/** How loud a node is, 0 to 1, as a meter shows it. */
export class Level {
  /** @param {AudioContext} context */
  constructor(context) {
    this.node = context.createAnalyser();
    this.node.fftSize = 512;
    this.samples = new Float32Array(this.node.fftSize);
  }

  /** @returns {number} */
  read() {
    this.node.getFloatTimeDomainData(this.samples);
    let sum = 0;
    for (const sample of this.samples) sum += sample * sample;
    const decibels = 10 * Math.log10(sum / this.samples.length + 1e-10);
    return Math.max(0, Math.min(1, (decibels + 55) / 45));
  }
}

/** Microphone -> pieces of PCM16 at 24 kHz; they are kept until somebody wants them. */
export class Recorder {
  /**
   * @param {AudioContext} context
   * @param {MediaStream} stream
   */
  static async open(context, stream) {
    await context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url));
    return new Recorder(context, stream);
  }

  /**
   * @param {AudioContext} context
   * @param {MediaStream} stream
   */
  constructor(context, stream) {
    /** @type {Int16Array[]} */
    this.kept = [];
    /** @type {((pcm: Int16Array) => void) | null} */
    this.give = null;
    this.source = context.createMediaStreamSource(stream);
    this.node = new AudioWorkletNode(context, "parley-capture", { numberOfOutputs: 1 });
    this.node.port.onmessage = ({ data }) => (this.give ? this.give(data) : this.keep(data));
    this.source.connect(this.node);
  }

  /** @param {Int16Array} pcm */
  keep(pcm) {
    this.kept.push(pcm);
    if (this.kept.length > 50 * 20) this.kept.shift(); // 20 s
  }

  /** Gives what was kept, then whatever comes. @param {(pcm: Int16Array) => void} give */
  flow(give) {
    for (const pcm of this.kept.splice(0)) give(pcm);
    this.give = give;
  }

  /** Keeps what comes from now on. */
  hold() {
    this.give = null;
  }

  close() {
    this.node.port.onmessage = null;
    this.source.disconnect();
    this.node.disconnect();
  }
}

/** PCM16 at 24 kHz -> loudspeaker, with a report of what was played. */
export class Player {
  /**
   * @param {AudioContext} context
   * @param {(item: string, samples: number, waiting: boolean) => void} report
   */
  static async open(context, report) {
    await context.audioWorklet.addModule(new URL("./player-worklet.js", import.meta.url));
    return new Player(context, report);
  }

  /**
   * @param {AudioContext} context
   * @param {(item: string, samples: number, waiting: boolean) => void} report
   */
  constructor(context, report) {
    this.node = new AudioWorkletNode(context, "parley-player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => {
      const late = Math.round((context.outputLatency || 0) * RATE_HZ); // rendered, but not yet in the air
      report(data.item, data.waiting ? Math.max(0, data.samples - late) : data.samples, data.waiting);
    };
    this.node.connect(context.destination);
  }

  /**
   * @param {string} item
   * @param {Int16Array} pcm
   */
  play(item, pcm) {
    this.node.port.postMessage({ play: pcm, item }, [pcm.buffer]);
  }

  /** @param {boolean} on */
  pause(on) {
    this.node.port.postMessage({ pause: on });
  }

  flush() {
    this.node.port.postMessage({ flush: true });
  }

  close() {
    this.node.disconnect();
  }
}

/** @param {Int16Array} pcm @returns {string} */
export function toBase64(pcm) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** @param {string} text @returns {Int16Array} */
export function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}
