/**
 * What a kiosk does, without DOM and without a clock: events in, actions out.
 *
 *     attract --touch, presence--> talk --a long while of nothing--> ask --nothing still--> attract
 *     talk, ask --finish--> attract          talk, ask --a problem--> away
 *     attract --the server is away--> away --it is back--> attract
 *
 * In `talk` the element looks after a lost connection itself; `away` is what it gave up on.
 *
 * @typedef {"attract" | "talk" | "ask" | "away"} State
 * @typedef {"touch" | "presence" | "activity" | "finish" | "problem" | "healthy" | "unhealthy"} Event
 * @typedef {"start" | "reset"} Action
 */

export class Kiosk {
  /** @param {{idleS: number, askS: number}} patience until it asks; from then until it gives up */
  constructor({ idleS, askS }) {
    this.idleMs = idleS * 1000;
    this.askMs = askS * 1000;
    /** @type {State} */
    this.state = "attract";
    this.lastMs = 0;
  }

  /**
   * @param {Event} event
   * @param {number} nowMs
   * @returns {Action | null}
   */
  feed(event, nowMs) {
    switch (this.state) {
      case "attract":
        if (event === "unhealthy") return this.go("away", null);
        if (event !== "touch" && event !== "presence") return null;
        this.lastMs = nowMs;
        return this.go("talk", "start");
      case "away":
        return event === "healthy" ? this.go("attract", null) : null;
      default:
        if (event === "problem") return this.go("away", "reset");
        if (event === "finish") return this.go("attract", "reset");
        if (event !== "touch" && event !== "activity") return null;
        this.lastMs = nowMs;
        return this.go("talk", null);
    }
  }

  /**
   * Time has passed.
   * @param {number} nowMs
   * @returns {Action | null}
   */
  tick(nowMs) {
    if (this.state === "talk" && nowMs - this.lastMs >= this.idleMs) return this.go("ask", null);
    if (this.state === "ask" && nowMs - this.lastMs >= this.idleMs + this.askMs) return this.go("attract", "reset");
    return null;
  }

  /**
   * @param {State} state
   * @param {Action | null} action
   */
  go(state, action) {
    this.state = state;
    return action;
  }
}
