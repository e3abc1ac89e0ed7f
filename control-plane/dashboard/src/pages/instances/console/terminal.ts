/**
 * A terminal that only shows: what guests print is not trusted. xterm.js draws cells and never HTML; here nothing is
 * answered, links of the guest are not made, and neither the mouse nor the second screen can be taken.
 */
import { type ITheme, Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { type ConsoleLine, findText, isRefusedMode, type Match } from "./console-text.ts";

const light: ITheme = {
  background: "#ffffff",
  foreground: "#1d242b",
  cursor: "#ffffff",
  selectionBackground: "#a2e0d6",
  selectionInactiveBackground: "#a2e0d6",
};
const dark: ITheme = {
  background: "#161b20",
  foreground: "#d9dee4",
  cursor: "#161b20",
  selectionBackground: "#005a50",
  selectionInactiveBackground: "#005a50",
};

export class LogTerminal {
  readonly #terminal: Terminal;
  readonly #box: HTMLElement;
  readonly #observer: ResizeObserver;

  constructor(box: HTMLElement) {
    this.#box = box;
    this.#terminal = new Terminal({
      disableStdin: true,
      // Some lines end without a carriage return.
      convertEol: true,
      scrollback: 100_000,
      fontSize: 12,
      lineHeight: 1.25,
      fontFamily: getComputedStyle(box).getPropertyValue("--mantine-font-family-monospace") || "monospace",
      cursorInactiveStyle: "none",
      minimumContrastRatio: 4.5,
      linkHandler: null,
    });
    const { parser } = this.#terminal;
    parser.registerOscHandler(8, () => true);
    parser.registerCsiHandler({ prefix: "?", final: "h" }, isRefusedMode);
    this.#terminal.attachCustomKeyEventHandler((event) => this.#onKey(event));
    this.#terminal.open(box);
    this.#observer = new ResizeObserver(() => this.#fit());
    this.#observer.observe(box);
    this.#fit();
  }

  setScheme(scheme: "light" | "dark"): void {
    this.#terminal.options.theme = scheme === "dark" ? dark : light;
  }

  write(text: string): void {
    this.#terminal.write(text);
  }

  reset(): void {
    this.#terminal.reset();
  }

  dispose(): void {
    this.#observer.disconnect();
    this.#terminal.dispose();
  }

  toEnd(): void {
    this.#terminal.scrollToBottom();
  }

  /** All that is shown, as plain text. */
  text(): string {
    return [...this.#lines()]
      .map(({ text }) => text)
      .join("\n")
      .trimEnd();
  }

  find(text: string): Match[] {
    return findText(this.#lines(), text, this.#terminal.cols);
  }

  show(match: Match): void {
    this.#terminal.select(match.column, match.row, match.length);
    this.#terminal.scrollToLine(Math.max(0, match.row - Math.floor(this.#terminal.rows / 2)));
  }

  showNothing(): void {
    this.#terminal.clearSelection();
  }

  *#lines(): Generator<ConsoleLine> {
    const buffer = this.#terminal.buffer.active;
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
      ArrowUp: () => this.#terminal.scrollLines(-1),
      ArrowDown: () => this.#terminal.scrollLines(1),
      PageUp: () => this.#terminal.scrollPages(-1),
      PageDown: () => this.#terminal.scrollPages(1),
      Home: () => this.#terminal.scrollToTop(),
      End: () => this.#terminal.scrollToBottom(),
    };
    const step = steps[event.key];
    if (step !== undefined) {
      step();
      event.preventDefault();
    }
    return false;
  }

  /** As many rows and columns as there is room for. The size of a cell is that of the screen by its cells. */
  #fit(): void {
    const screen = this.#box.querySelector<HTMLElement>(".xterm-screen");
    if (screen === null) return;
    const width = screen.clientWidth / this.#terminal.cols;
    const height = screen.clientHeight / this.#terminal.rows;
    if (!(width > 0 && height > 0)) return;
    // The scroll bar has 14 pixels.
    const columns = Math.max(20, Math.floor((this.#box.clientWidth - 14) / width));
    const rows = Math.max(4, Math.floor(this.#box.clientHeight / height));
    if (columns !== this.#terminal.cols || rows !== this.#terminal.rows) this.#terminal.resize(columns, rows);
  }
}
