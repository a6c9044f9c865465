/**
 * Microphone -> PCM16 at 24 kHz in pieces of 20 ms, posted to the page.
 *
 * The context usually runs at 24 kHz. Where the browser insists on its own rate, each output sample is the mean of the
 * input around it: a short low-pass and the change of rate in one.
 */
const RATE_HZ = 24000;
const PIECE = RATE_HZ / 50;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.step = sampleRate / RATE_HZ;
    this.until = this.step; // input samples until the next output sample
    this.sum = 0;
    this.count = 0;
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    for (const sample of inputs[0][0] ?? []) {
      this.sum += sample;
      this.count += 1;
      this.until -= 1;
      while (this.until < 0.5) {
        this.put(this.sum / Math.max(1, this.count));
        if (this.until + this.step >= 0.5) {
          this.sum = 0;
          this.count = 0;
        }
        this.until += this.step;
      }
    }
    return true;
  }

  /** @param {number} value */
  put(value) {
    this.piece[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
    if (this.filled < PIECE) return;
    this.port.postMessage(this.piece, [this.piece.buffer]);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
  }
}

registerProcessor("parley-capture", Capture);
export {}; // a module: its names are its own
