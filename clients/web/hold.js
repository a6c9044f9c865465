/** Push to talk: the button is held down, by a pointer or the space bar. Whoever began ends it. */
export class Hold {
  /**
   * @param {HTMLButtonElement} button
   * @param {() => boolean} allowed
   * @param {(on: boolean) => void} changed
   */
  constructor(button, allowed, changed) {
    this.by = /** @type {"" | "pointer" | "key"} */ ("");
    this.allowed = allowed;
    this.changed = changed;
    button.addEventListener("pointerdown", ({ pointerId }) => {
      if (this.begin("pointer")) button.setPointerCapture(pointerId); // the button changes its size beneath the finger
    });
    for (const name of ["pointerup", "pointercancel"]) button.addEventListener(name, () => this.end("pointer"));
    button.addEventListener("keydown", ({ key, repeat }) => {
      if (key === " " && !repeat) this.begin("key");
    });
    button.addEventListener("keyup", ({ key }) => {
      if (key === " ") this.end("key");
    });
    button.addEventListener("blur", () => this.end("key")); // it would come up elsewhere
  }

  /** @param {"pointer" | "key"} by */
  begin(by) {
    if (this.by || !this.allowed()) return false;
    this.by = by;
    this.changed(true);
    return true;
  }

  /** @param {"pointer" | "key"} by */
  end(by) {
    if (this.by !== by) return;
    this.by = "";
    this.changed(false);
  }

  /** Whoever holds it. */
  drop() {
    if (this.by) this.end(this.by);
  }
}
