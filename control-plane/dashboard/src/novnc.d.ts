/** The part of noVNC that is used here. Its own documentation is in docs/API.md of the package. */
declare module "@novnc/novnc" {
  /** A client of one screen. Events: `connect`, `disconnect`. */
  export default class RFB extends EventTarget {
    /** Draws into the element, and speaks RFB over a WebSocket that may still be opening. */
    constructor(target: HTMLElement, channel: WebSocket);
    scaleViewport: boolean;
    background: string;
    focus(): void;
    disconnect(): void;
    sendCtrlAltDel(): void;
    /** Presses or releases a key; both if `down` is left out. */
    sendKey(keysym: number, code: string | null, down?: boolean): void;
  }
}
