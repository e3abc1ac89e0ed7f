/** A terminal that is typed into. It speaks for the guest's serial line: what it answers goes where keys go. */
import { BaseTerminal } from "./base-terminal.ts";

export interface Size {
  columns: number;
  rows: number;
}

interface Ways {
  /** Bytes for the guest. */
  onInput: (bytes: Uint8Array<ArrayBuffer>) => void;
  /** The window has another size now. A serial line does not tell the guest. */
  onResize: (size: Size) => void;
  /** The reader wants the keyboard back for the page. */
  onLeave: () => void;
}

/** Whether a key leaves the terminal: Ctrl-], as in `muster console`. Tab and Escape belong to the guest. */
export const isLeaveKey = (event: Pick<KeyboardEvent, "ctrlKey" | "altKey" | "metaKey" | "key">) =>
  event.ctrlKey && !event.altKey && !event.metaKey && event.key === "]";

export class SerialTerminal extends BaseTerminal {
  constructor(box: HTMLElement, { onInput, onResize, onLeave }: Ways) {
    super(box, { hasCursor: true, scrollback: 10_000 });
    const encoder = new TextEncoder();
    this.terminal.onData((text) => onInput(encoder.encode(text)));
    // Reports of the mouse are bytes, one in each letter.
    this.terminal.onBinary((text) => onInput(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
    this.terminal.onResize(({ cols, rows }) => onResize({ columns: cols, rows }));
    this.terminal.attachCustomKeyEventHandler((event) => {
      if (event.type !== "keydown") return true;
      if (isLeaveKey(event)) {
        event.preventDefault();
        onLeave();
        return false;
      }
      if (event.ctrlKey && event.shiftKey && event.key.toLowerCase() === "c" && this.terminal.hasSelection()) {
        event.preventDefault();
        void navigator.clipboard?.writeText(this.terminal.getSelection());
        return false;
      }
      return true;
    });
    onResize(this.size());
  }

  size(): Size {
    return { columns: this.terminal.cols, rows: this.terminal.rows };
  }

  focus(): void {
    this.terminal.focus();
  }
}

/** What tells a shell in the guest how large the window is. */
export const sttyLine = ({ rows, columns }: Size) => `stty rows ${rows} cols ${columns}\r`;
