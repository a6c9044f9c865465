/** Somebody stands before the kiosk: the camera's picture changes. Nothing leaves this page; opt-in. */

const EVERY_MS = 250;
const WIDTH = 32;
const HEIGHT = 24;
const MOVED = 12; // mean difference of two pictures, of 255, in the part of the picture that changed most
const TIMES = 3; // in a row: a passing shadow is nobody

/**
 * @param {() => void} seen
 * @param {() => boolean} wanted the camera's picture is looked at only then
 */
export async function watchForPeople(seen, wanted) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 160, frameRate: 5 } }).catch(() => null);
  if (!stream) return; // without a camera it is woken by touch
  const video = document.createElement("video");
  video.muted = true;
  video.srcObject = stream;
  await video.play();
  const canvas = new OffscreenCanvas(WIDTH, HEIGHT);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  /** @type {Uint8ClampedArray | null} */
  let before = null;
  let moved = 0;
  setInterval(() => {
    if (!context || !wanted()) {
      before = null;
      moved = 0;
      return;
    }
    context.drawImage(video, 0, 0, WIDTH, HEIGHT);
    const now = context.getImageData(0, 0, WIDTH, HEIGHT).data;
    moved = before && motion(before, now) > MOVED ? moved + 1 : 0;
    before = now;
    if (moved < TIMES) return;
    moved = 0;
    seen();
  }, EVERY_MS);
}

/**
 * The largest mean difference among the picture's columns of an eighth of its width.
 * @param {ArrayLike<number>} before RGBA
 * @param {ArrayLike<number>} now
 */
export function motion(before, now) {
  const sums = new Array(8).fill(0);
  for (let pixel = 0; pixel < WIDTH * HEIGHT; pixel++) {
    const column = Math.floor(((pixel % WIDTH) * 8) / WIDTH);
    for (let colour = 0; colour < 3; colour++) {
      sums[column] += Math.abs(before[4 * pixel + colour] - now[4 * pixel + colour]);
    }
  }
  return Math.max(...sums) / ((3 * WIDTH * HEIGHT) / 8);
}
