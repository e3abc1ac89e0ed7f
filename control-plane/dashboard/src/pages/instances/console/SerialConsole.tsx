import { Button, Stack, Text, useComputedColorScheme } from "@mantine/core";
import { IconKeyboard } from "@tabler/icons-react";
import { useEffect, useRef, useState } from "react";
import type { ConsoleEvent } from "../../../api/consoles.ts";
import type { Instance } from "../../../api/instances.ts";
import { bytes } from "../../../ui/format.ts";
import classes from "./Console.module.css";
import { ConsoleBar } from "./ConsoleBar.tsx";
import { ConsoleHint } from "./ConsoleHint.tsx";
import { SerialTerminal, type Size, sttyLine } from "./serial-terminal.ts";
import { useConnection } from "./useConnection.ts";

/** The serial console of an instance, to type into. */
export default function SerialConsole({ instance }: { instance: Instance }) {
  const whole = useRef<HTMLDivElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const first = useRef<HTMLButtonElement>(null);
  const [terminal, setTerminal] = useState<SerialTerminal | null>(null);
  const [size, setSize] = useState<Size>();
  // What the guest was told last. It asks nobody, so it does not know before.
  const [told, setTold] = useState<Size>();
  const [role, setRole] = useState<{ types: boolean; why: string }>();
  const [skipped, setSkipped] = useState(0);
  const scheme = useComputedColorScheme("light", { getInitialValueInEffect: false });
  const types = useRef(false);
  types.current = role?.types === true;

  const onEvent = (event: ConsoleEvent) => {
    if (event.event === "writer") setRole({ types: true, why: "" });
    else if (event.event === "reader") setRole({ types: false, why: event.reason });
    else if (event.event === "skipped") setSkipped((before) => before + event.bytes);
  };
  const { phase, open, send } = useConnection(instance, {
    kind: "serial",
    isReady: terminal !== null,
    onSocket: (socket) => {
      setRole(undefined);
      setSkipped(0);
      setTold(undefined);
      // It begins with the end of what was printed.
      socket.addEventListener("open", () => terminal?.reset());
      socket.addEventListener("message", ({ data }) => {
        if (data instanceof ArrayBuffer) terminal?.write(new Uint8Array(data));
      });
    },
    onEvent,
  });

  const sending = useRef(send);
  sending.current = send;
  useEffect(() => {
    if (box.current === null) return undefined;
    const made = new SerialTerminal(box.current, {
      onInput: (input) => {
        if (types.current) sending.current(input);
      },
      onResize: setSize,
      onLeave: () => first.current?.focus(),
    });
    setTerminal(made);
    return () => made.dispose();
  }, []);
  useEffect(() => terminal?.setScheme(scheme), [terminal, scheme]);
  const isOpen = phase.at === "open";
  useEffect(() => {
    if (isOpen) terminal?.focus();
  }, [isOpen, terminal]);

  const tellSize = () => {
    if (size === undefined) return;
    send(new TextEncoder().encode(sttyLine(size)));
    setTold(size);
    terminal?.focus();
  };
  const isTold = told?.columns === size?.columns && told?.rows === size?.rows;
  return (
    <Stack ref={whole} gap="xs" className={classes.whole}>
      <ConsoleBar
        instance={instance}
        phase={phase}
        what={
          role === undefined ? "Connected." : role.types ? "Connected. You may type." : `Only watching: ${role.why}.`
        }
        onOpen={() => open()}
        whole={whole}
        first={first}
      >
        {isOpen && role?.types === false && (
          <Button size="xs" leftSection={<IconKeyboard size={15} />} onClick={() => open({ take: true })}>
            Take the keyboard
          </Button>
        )}
        {isOpen && role?.types === true && !isTold && (
          <Button
            size="xs"
            variant="default"
            onClick={tellSize}
            title={size === undefined ? undefined : `Types stty rows ${size.rows} cols ${size.columns}`}
          >
            Tell the guest the size
          </Button>
        )}
      </ConsoleBar>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: keys for the guest are not keys for the page */}
      <div className={classes.box} onKeyDown={(event) => event.stopPropagation()}>
        <section ref={box} className={classes.screen} aria-label={`Serial console of ${instance.name}`} />
      </div>
      {skipped > 0 && (
        <Text size="xs" c="dimmed" role="status">
          {bytes(skipped)} were left out, because they came faster than this page takes them. The log has all of it.
        </Text>
      )}
      <ConsoleHint command={`muster console ${instance.name}`}>
        Ctrl-] leaves the terminal. Ctrl-Shift-C copies, Ctrl-Shift-V pastes.
      </ConsoleHint>
    </Stack>
  );
}
