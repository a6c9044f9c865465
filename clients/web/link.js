/** What the two ways to a server have in common. */

/**
 * @typedef {object} LinkOptions
 * @property {URL} url of the server's API, `.../v1/`
 * @property {() => Promise<string>} token
 * @property {MediaStream | null} microphone
 * @property {AudioContext} context
 * @property {RTCIceServer[]} iceServers
 * @property {object} session what the session begins with
 * @property {(event: any) => void} onevent
 * @property {(item: string, ms: number) => void} onplayed so much of an item has been heard, where that is known
 * @property {() => void} ondown the link is gone and was not closed by us
 */

export const ANSWER_MS = 20_000; // a server that takes longer to answer is away

/** @param {() => Promise<string>} token @returns {Promise<Record<string, string>>} headers */
export async function authorization(token) {
  const value = await token();
  return value ? { Authorization: `Bearer ${value}` } : {};
}
