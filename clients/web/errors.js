/**
 * What can go wrong for somebody at a screen, and what they can do about it.
 *
 * @typedef {"no-microphone" | "blocked" | "busy" | "insecure" | "offline" | "full" | "loading" | "key" | "lost" |
 *   "failed"} Problem
 */

/** @type {Record<Problem, {title: string, advice: string}>} */
export const ADVICE = {
  "no-microphone": {
    title: "No microphone found",
    advice: "Plug one in, or choose another under Settings. You can type in the meantime.",
  },
  blocked: {
    title: "The microphone is blocked",
    advice: "Allow it in the address bar (the icon left of the address), then try again. You can type in the meantime.",
  },
  busy: {
    title: "The microphone is in use",
    advice: "Another program holds it. Close that, or choose another microphone under Settings.",
  },
  insecure: {
    title: "The browser gives no microphone here",
    advice: "Browsers allow it on https:// pages and on localhost only. Open this page there.",
  },
  offline: {
    title: "The server can't be reached",
    advice: "Check the network, and that the server runs. Trying again is safe.",
  },
  full: { title: "Everybody is busy", advice: "All lines are taken just now. Try again in a moment." },
  loading: { title: "The server is starting", advice: "Its model is being loaded. Try again in a moment." },
  key: { title: "This server needs a key", advice: "Enter the key you were given." },
  lost: { title: "The connection was lost", advice: "It did not come back. Try again to go on where you were." },
  failed: { title: "That did not work", advice: "Try again; if it happens again, the server's log says why." },
};

/** An error with a name that the page can explain. */
export class ParleyError extends Error {
  /**
   * @param {Problem} problem
   * @param {string} [detail] for developers
   */
  constructor(problem, detail = "") {
    super(detail || ADVICE[problem].title);
    this.name = "ParleyError";
    this.problem = problem;
  }
}

/**
 * @param {Response} response a refusal of the server
 * @returns {Promise<ParleyError>}
 */
export async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const code = body?.error?.code ?? "";
  const detail = body?.error?.message ?? `HTTP ${response.status}`;
  if (response.status === 401 || response.status === 403) return new ParleyError("key", detail);
  if (code === "model_loading") return new ParleyError("loading", detail);
  if (response.status === 503) return new ParleyError("full", detail);
  return new ParleyError("failed", detail);
}

/**
 * @param {unknown} error of getUserMedia
 * @returns {ParleyError}
 */
export function microphoneError(error) {
  const name = error instanceof Error ? error.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") return new ParleyError("blocked", String(error));
  if (name === "NotFoundError" || name === "OverconstrainedError") return new ParleyError("no-microphone", String(error));
  return new ParleyError("busy", String(error));
}
