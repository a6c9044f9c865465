/**
 * What can go wrong for somebody at a screen; words.js says it to them, and what they can do about it.
 *
 * @typedef {"no-microphone" | "blocked" | "busy" | "insecure" | "offline" | "full" | "loading" | "key" | "lost" |
 *   "failed"} Problem
 */

/** An error with a name that the page can explain. */
export class ParleyError extends Error {
  /**
   * @param {Problem} problem
   * @param {string} [detail] for developers
   */
  constructor(problem, detail = "") {
    super(detail || problem);
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
