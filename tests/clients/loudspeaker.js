// Records what a page plays: whatever is connected to an AudioContext's destination, and every media element with a
// stream. Pieces of about 20 ms with the page's clock (seconds) at their first sample.
(() => {
  const WORKLET = `registerProcessor("tap", class extends AudioWorkletProcessor {
    piece = new Float32Array(1024);
    filled = 0;
    process([input]) {
      if (!input[0]) return true;
      if (!this.filled) this.at = currentTime;
      this.piece.set(input[0], this.filled);
      this.filled += input[0].length;
      if (this.filled === this.piece.length) {
        this.port.postMessage([this.at, this.piece.slice()]);
        this.filled = 0;
      }
      return true;
    }
  })`;
  const connect = AudioNode.prototype.connect;
  const taps = new WeakMap();
  const found = { rate: 0, pieces: [] };

  async function makeTap(context) {
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(context, "tap", { channelCount: 1, channelCountMode: "explicit" });
    found.rate = context.sampleRate;
    tap.port.onmessage = ({ data: [at, pcm] }) => {
      const { contextTime, performanceTime } = context.getOutputTimestamp();
      const now = performanceTime ? performanceTime / 1000 + at - contextTime : performance.now() / 1000;
      found.pieces.push([now, pcm]);
    };
    connect.call(tap, context.destination); // its output is silence; without it nothing is pulled
    return tap;
  }

  function tapOf(context) {
    if (!taps.has(context)) taps.set(context, makeTap(context));
    return taps.get(context);
  }

  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode) tapOf(this.context).then((tap) => connect.call(this, tap));
    return connect.call(this, to, ...rest);
  };

  const given = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "srcObject");
  Object.defineProperty(HTMLMediaElement.prototype, "srcObject", {
    ...given,
    set(stream) {
      given.set.call(this, stream);
      if (!stream?.getAudioTracks().length || this.muted) return;
      const context = new AudioContext({ sampleRate: 48000 });
      tapOf(context).then((tap) => connect.call(context.createMediaStreamSource(stream), tap));
    },
  });

  function base64(samples) {
    const pcm = Int16Array.from(samples, (value) => Math.max(-1, Math.min(1, value)) * 32767);
    const bytes = new Uint8Array(pcm.buffer);
    return btoa(String.fromCharCode(...bytes));
  }

  window.loudspeaker = {
    /** When something audible was played. */
    loud() {
      return found.pieces.filter(([, pcm]) => pcm.some((value) => Math.abs(value) > 0.006)).map(([at]) => at);
    },
    /** All of it. */
    take() {
      const pieces = [];
      for (const [at, pcm] of found.pieces) pieces.push([at, base64(pcm)]);
      return [found.rate, pieces];
    },
  };
})();
