/**
 * A terminal that only shows the log: nothing is answered, and neither the mouse nor the second screen can be taken.
 */
import { BaseTerminal } from "./base-terminal.ts";
import { type ConsoleLine, findText, isRefusedMode, type Match } from "./console-text.ts";

export class LogTerminal extends BaseTerminal {
  constructor(box: HTMLElement) {
    super(box, {
      hasCursor: false,
      disableStdin: true,
      // Some lines end without a carriage return.
      convertEol: true,
      scrollback: 100_000,
      cursorInactiveStyle: "none",
    });
    this.terminal.parser.registerCsiHandler({ prefix: "?", final: "h" }, isRefusedMode);
    this.terminal.attachCustomKeyEventHandler((event) => this.#onKey(event));
  }

  toEnd(): void {
    this.terminal.scrollToBottom();
  }

  /** All that is shown, as plain text. */
  text(): string {
    return [...this.#lines()]
      .map(({ text }) => text)
      .join("\n")
      .trimEnd();
  }

  find(text: string): Match[] {
    return findText(this.#lines(), text, this.terminal.cols);
  }

  show(match: Match): void {
    this.terminal.select(match.column, match.row, match.length);
    this.terminal.scrollToLine(Math.max(0, match.row - Math.floor(this.terminal.rows / 2)));
  }

  showNothing(): void {
    this.terminal.clearSelection();
  }

  *#lines(): Generator<ConsoleLine> {
    const buffer = this.terminal.buffer.active;
    let line: ConsoleLine | undefined;
    for (let row = 0; row < buffer.length; row += 1) {
      const part = buffer.getLine(row);
      if (part === undefined) continue;
      const goesOn = buffer.getLine(row + 1)?.isWrapped === true;
      const text = part.translateToString(!goesOn);
      line = part.isWrapped && line !== undefined ? { row: line.row, text: line.text + text } : { row, text };
      if (!goesOn) {
        yield line;
        line = undefined;
      }
    }
  }

  /** Nothing is typed here, so that no key is kept from the browser but those that scroll. */
  #onKey(event: KeyboardEvent): boolean {
    if (event.type !== "keydown" || event.ctrlKey || event.metaKey || event.altKey) return false;
    const steps: Record<string, () => void> = {
      ArrowUp: () => this.terminal.scrollLines(-1),
      ArrowDown: () => this.terminal.scrollLines(1),
      PageUp: () => this.terminal.scrollPages(-1),
      PageDown: () => this.terminal.scrollPages(1),
      Home: () => this.terminal.scrollToTop(),
      End: () => this.terminal.scrollToBottom(),
    };
    const step = steps[event.key];
    if (step !== undefined) {
      step();
      event.preventDefault();
    }
    return false;
  }
}
