/**
 * What both terminals share: their look, and as many rows and columns as there is room for. What guests print is not
 * trusted: xterm.js draws cells and never HTML, and links of the guest are not made.
 */
import { type ITerminalOptions, type ITheme, Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";

const light: ITheme = {
  background: "#ffffff",
  foreground: "#1d242b",
  selectionBackground: "#a2e0d6",
  selectionInactiveBackground: "#a2e0d6",
};
const dark: ITheme = {
  background: "#161b20",
  foreground: "#d9dee4",
  selectionBackground: "#005a50",
  selectionInactiveBackground: "#005a50",
};

export class BaseTerminal {
  protected readonly terminal: Terminal;
  readonly #box: HTMLElement;
  readonly #observer: ResizeObserver;
  readonly #hasCursor: boolean;
  #cell: { width: number; height: number } | undefined;

  constructor(box: HTMLElement, { hasCursor, ...options }: ITerminalOptions & { hasCursor: boolean }) {
    this.#box = box;
    this.#hasCursor = hasCursor;
    this.terminal = new Terminal({
      fontSize: 12,
      lineHeight: 1.25,
      fontFamily: getComputedStyle(box).getPropertyValue("--mantine-font-family-monospace") || "monospace",
      minimumContrastRatio: 4.5,
      linkHandler: null,
      ...options,
    });
    this.terminal.parser.registerOscHandler(8, () => true);
    this.terminal.open(box);
    this.#observer = new ResizeObserver(() => this.#fit());
    this.#observer.observe(box);
    this.#fit();
  }

  setScheme(scheme: "light" | "dark"): void {
    const theme = scheme === "dark" ? dark : light;
    const cursor = this.#hasCursor ? theme.foreground : theme.background;
    this.terminal.options.theme = { ...theme, cursor, cursorAccent: theme.background };
  }

  write(text: string | Uint8Array): void {
    this.terminal.write(text);
  }

  reset(): void {
    this.terminal.reset();
  }

  dispose(): void {
    this.#observer.disconnect();
    this.terminal.dispose();
  }

  /** As many rows and columns as there is room for. */
  #fit(): void {
    // A later look would come out wrong: xterm.js draws a new size late, and not at all out of sight.
    this.#cell ??= this.#measure();
    if (this.#cell === undefined) return;
    // The scroll bar has 14 pixels.
    const columns = Math.max(20, Math.floor((this.#box.clientWidth - 14) / this.#cell.width));
    const rows = Math.max(4, Math.floor(this.#box.clientHeight / this.#cell.height));
    if (columns !== this.terminal.cols || rows !== this.terminal.rows) this.terminal.resize(columns, rows);
  }

  /** The size of a cell is that of the screen by its cells. */
  #measure() {
    const screen = this.#box.querySelector<HTMLElement>(".xterm-screen");
    const width = (screen?.clientWidth ?? 0) / this.terminal.cols;
    const height = (screen?.clientHeight ?? 0) / this.terminal.rows;
    return width > 0 && height > 0 ? { width, height } : undefined;
  }
}
