/** Keys and pairs of keys that do something: `?`, `g d`. Pure but for the functions it calls; tested beside it. */

/** How long after the first key of a pair the second one counts. */
const patienceMs = 1_200;

/** What is needed of a key that was pressed. */
export type Pressed = Pick<
  KeyboardEvent,
  "key" | "ctrlKey" | "metaKey" | "altKey" | "target" | "preventDefault" | "timeStamp"
>;

export class KeySequences {
  readonly #actions: Readonly<Record<string, () => void>>;
  readonly #firsts: ReadonlySet<string>;
  #first: { key: string; at: number } | undefined;

  /** `actions` by their keys, with a space between two. */
  constructor(actions: Readonly<Record<string, () => void>>) {
    this.#actions = actions;
    this.#firsts = new Set(
      Object.keys(actions).flatMap((keys) => (keys.includes(" ") ? [keys.split(" ")[0] as string] : [])),
    );
  }

  press(event: Pressed): void {
    const first = this.#first;
    this.#first = undefined;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // In a field keys are text; in a dialog they belong to it.
    const target = event.target as HTMLElement | null;
    if (target?.closest?.("input,textarea,select,[contenteditable],[role=dialog],[role=menu]")) return;
    const recent = first !== undefined && event.timeStamp - first.at < patienceMs;
    const action = (recent ? this.#actions[`${first.key} ${event.key}`] : undefined) ?? this.#actions[event.key];
    if (action !== undefined) {
      event.preventDefault();
      action();
    } else if (this.#firsts.has(event.key)) this.#first = { key: event.key, at: event.timeStamp };
  }
}
