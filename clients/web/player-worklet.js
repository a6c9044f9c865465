/**
 * Plays PCM16 at 24 kHz, item after item, and says what of each was played.
 *
 * In: {play: Int16Array, item} | {pause: boolean} | {flush: true}.
 * Out, each 100 ms while there is something to play, and at its end: {item, samples, waiting}.
 */
const RATE_HZ = 24000;
const REPORT_S = 0.1;

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    /** @type {{item: string, pcm: Int16Array}[]} */
    this.queue = [];
    this.at = 0; // position within the first piece, in samples at 24 kHz
    this.item = "";
    this.samples = 0; // played of the item
    this.paused = false;
    this.sinceReport = 0;
    this.port.onmessage = (/** @type {MessageEvent} */ { data }) => this.take(data);
  }

  /** @param {{play?: Int16Array, item?: string, pause?: boolean, flush?: boolean}} message */
  take(message) {
    if (message.play) this.queue.push({ item: message.item ?? "", pcm: message.play });
    if (message.pause !== undefined) this.paused = message.pause;
    if (message.flush) {
      this.queue = [];
      this.at = 0;
      this.paused = false;
    }
  }

  /**
   * @param {Float32Array[][]} _
   * @param {Float32Array[][]} outputs
   */
  process(_, outputs) {
    const out = outputs[0][0];
    const step = RATE_HZ / sampleRate;
    const had = this.queue.length > 0;
    for (let n = 0; n < out.length && this.queue.length && !this.paused; n++) out[n] = this.next(step);
    this.sinceReport += out.length / sampleRate;
    if (had && (this.sinceReport >= REPORT_S || !this.queue.length)) this.report();
    return true;
  }

  /** @param {number} step */
  next(step) {
    const { item, pcm } = this.queue[0];
    if (item !== this.item) {
      this.item = item;
      this.samples = 0;
    }
    const index = Math.floor(this.at);
    const after = pcm[index + 1] ?? this.queue[1]?.pcm[0] ?? pcm[index];
    const value = pcm[index] + (after - pcm[index]) * (this.at - index);
    this.at += step;
    this.samples += step;
    if (this.at >= pcm.length) {
      this.at -= pcm.length;
      this.queue.shift();
    }
    return value / 32768;
  }

  report() {
    this.sinceReport = 0;
    this.port.postMessage({ item: this.item, samples: Math.round(this.samples), waiting: this.queue.length > 0 });
  }
}

registerProcessor("parley-player", Player);
export {}; // a module: its names are its own
