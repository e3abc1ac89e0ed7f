import { Button, Stack } from "@mantine/core";
import RFB from "@novnc/novnc";
import { IconClipboardText } from "@tabler/icons-react";
import { useEffect, useRef, useState } from "react";
import type { Instance } from "../../../api/instances.ts";
import classes from "./Console.module.css";
import { ConsoleBar } from "./ConsoleBar.tsx";
import { ConsoleHint } from "./ConsoleHint.tsx";
import { PasteDialog } from "./PasteDialog.tsx";
import { isLeaveKey } from "./serial-terminal.ts";
import { type Key, keysOf, step } from "./type-text.ts";
import { useConnection } from "./useConnection.ts";

const shiftLeft = 0xffe1;

/** The screen of an instance, with keyboard and mouse. */
export default function ScreenConsole({ instance }: { instance: Instance }) {
  const whole = useRef<HTMLDivElement>(null);
  const first = useRef<HTMLButtonElement>(null);
  const [box, setBox] = useState<HTMLElement | null>(null);
  const [pasting, setPasting] = useState(false);
  const screen = useRef<RFB>(undefined);
  const { phase, open } = useConnection(instance, {
    kind: "vnc",
    isReady: box !== null,
    onSocket: (socket) => {
      if (box === null) return;
      // The last picture of a connection before stays until there is another.
      box.replaceChildren();
      const made = new RFB(box, socket);
      made.scaleViewport = true;
      made.background = "transparent";
      made.addEventListener("connect", () => made.focus());
      made.addEventListener("disconnect", () => {
        if (screen.current === made) screen.current = undefined;
      });
      screen.current = made;
    },
  });

  // Keys of the guest are seen before noVNC takes them, so that the keyboard finds its way out.
  useEffect(() => {
    if (box === null) return undefined;
    const onKey = (event: KeyboardEvent) => {
      if (!isLeaveKey(event)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      first.current?.focus();
    };
    box.addEventListener("keydown", onKey, true);
    return () => box.removeEventListener("keydown", onKey, true);
  }, [box]);

  // Keys that are still to be sent to the guest.
  const [untyped, setUntyped] = useState<readonly Key[]>([]);
  useEffect(() => {
    if (untyped.length === 0) return undefined;
    const made = screen.current;
    // A key that would be sent to nobody is not kept for the next connection.
    if (made === undefined) {
      setUntyped([]);
      return undefined;
    }
    for (const { keysym, shift } of untyped.slice(0, step.keys)) {
      if (shift) made.sendKey(shiftLeft, "ShiftLeft", true);
      made.sendKey(keysym, null);
      if (shift) made.sendKey(shiftLeft, "ShiftLeft", false);
    }
    const timer = setTimeout(() => setUntyped(untyped.slice(step.keys)), step.pauseMs);
    return () => clearTimeout(timer);
  }, [untyped]);
  const type = (text: string) => {
    setUntyped(keysOf(text).keys);
    screen.current?.focus();
  };
  const isOpen = phase.at === "open";
  return (
    <Stack ref={whole} gap="xs" className={classes.whole}>
      <ConsoleBar
        instance={instance}
        phase={phase}
        what="Connected. Keys and mouse go to the guest."
        onOpen={() => open()}
        whole={whole}
        first={first}
      >
        {isOpen && (
          <>
            <Button size="xs" variant="default" onClick={() => screen.current?.sendCtrlAltDel()}>
              Ctrl-Alt-Del
            </Button>
            <Button
              size="xs"
              variant="default"
              leftSection={<IconClipboardText size={14} />}
              onClick={() => {
                // A dialog is not part of what fills the screen.
                if (document.fullscreenElement) void document.exitFullscreen();
                setPasting(true);
              }}
            >
              Paste
            </Button>
            {untyped.length > 0 && (
              <Button size="xs" variant="default" onClick={() => setUntyped([])}>
                Stop typing ({untyped.length} left)
              </Button>
            )}
          </>
        )}
      </ConsoleBar>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: keys for the guest are not keys for the page */}
      <div className={classes.box} data-screen onKeyDown={(event) => event.stopPropagation()}>
        <section ref={setBox} className={classes.screen} aria-label={`Screen of ${instance.name}`} />
      </div>
      <ConsoleHint>Ctrl-] gives the keyboard back to this page.</ConsoleHint>
      <PasteDialog opened={pasting} onClose={() => setPasting(false)} onType={type} />
    </Stack>
  );
}
