/** A face that speaks: an SVG whose mouth follows `Lips`. */

import { REST } from "./lips.js";

/** @typedef {import("./lips.js").Shape} Shape */

/** @type {Record<string, [width: number, height: number]>} half axes of the mouth, wide open */
const MOUTHS = { rest: [15, 1], open: [14, 13], wide: [20, 7], round: [8, 9], teeth: [17, 3] };
const FOLLOWS = 0.45; // of the way to the next shape, a frame: lips have a mass

export const FACE = /* html */ `
<svg class="avatar" part="avatar" viewBox="0 0 120 120" aria-hidden="true" hidden>
  <circle class="face" cx="60" cy="60" r="54"/>
  <circle class="eye" cx="42" cy="50" r="5"/><circle class="eye" cx="78" cy="50" r="5"/>
  <ellipse class="mouth" cx="60" cy="82" rx="15" ry="1"/>
</svg>`;

export class Avatar {
  /** @param {SVGElement} face */
  constructor(face) {
    this.mouth = /** @type {SVGEllipseElement} */ (face.querySelector(".mouth"));
    this.width = this.height = 0;
    this.rest();
  }

  rest() {
    [this.width, this.height] = MOUTHS.rest;
    this.show();
  }

  /** @param {Shape} shape what it is to become */
  draw(shape) {
    const [width, height] = MOUTHS[shape[0]] ?? MOUTHS.open;
    const [, closed] = MOUTHS[REST[0]];
    this.width += (width - this.width) * FOLLOWS;
    this.height += (closed + (height - closed) * shape[1] - this.height) * FOLLOWS;
    this.show();
  }

  show() {
    this.mouth.setAttribute("rx", this.width.toFixed(1));
    this.mouth.setAttribute("ry", this.height.toFixed(1));
  }
}
