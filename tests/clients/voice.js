// A microphone that says what it is told, at a moment the test chooses: speak(WAV in base64) -> the page's clock (s).
(() => {
  let context;
  let mouth;
  const open = () => {
    context ??= new AudioContext({ sampleRate: 48000 });
    if (!mouth) {
      mouth = context.createMediaStreamDestination();
      const quiet = context.createConstantSource(); // of nothing: without a source no samples at all would come
      quiet.offset.value = 0;
      quiet.connect(mouth);
      quiet.start();
    }
    return mouth.stream.clone();
  };
  const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = (wanted) => (wanted.audio ? Promise.resolve(open()) : getUserMedia(wanted));

  window.speak = async (wav) => {
    const bytes = Uint8Array.from(atob(wav), (letter) => letter.charCodeAt(0));
    const source = context.createBufferSource();
    source.buffer = await context.decodeAudioData(bytes.buffer);
    source.connect(mouth);
    const at = context.currentTime + 0.05;
    source.start(at);
    return performance.now() / 1000 + at - context.currentTime;
  };
})();
