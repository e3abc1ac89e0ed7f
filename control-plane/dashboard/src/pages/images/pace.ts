/** How fast an upload is and when it ends, from what was seen in the last seconds. Pure; tested in pace.test.ts. */

const windowMs = 6_000;

interface Seen {
  at: number;
  sent: number;
}

export class Pace {
  #seen: Seen[] = [];

  /** Takes note of how many bytes are sent by now. */
  take(at: number, sent: number): void {
    this.#seen.push({ at, sent });
    // One older than the window stays, so that the window is always covered.
    while (this.#seen.length > 2 && at - (this.#seen[1]?.at ?? at) >= windowMs) this.#seen.shift();
  }

  /** Bytes per second of the last seconds; null before that can be told. */
  perSecond(): number | null {
    const first = this.#seen[0];
    const last = this.#seen.at(-1);
    if (first === undefined || last === undefined || last.at - first.at < 500) return null;
    return ((last.sent - first.sent) * 1000) / (last.at - first.at);
  }

  /** Milliseconds until all is sent; null if that cannot be told. */
  leftMs(total: number): number | null {
    const speed = this.perSecond();
    const sent = this.#seen.at(-1)?.sent ?? 0;
    return speed === null || speed <= 0 ? null : ((total - sent) * 1000) / speed;
  }
}
