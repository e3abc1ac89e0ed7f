import { useEffect, useRef, useState } from "react";
import { type ConsoleEvent, consoleTicket } from "../../../api/consoles.ts";
import type { Instance } from "../../../api/instances.ts";
import { ConsoleConnection, type Phase, type Wish } from "./connection.ts";

/** States in which a guest has a console. */
const runs = new Set(["starting", "running", "paused", "stopping"]);

export const hasConsole = ({ state }: Pick<Instance, "state">) => runs.has(state);

interface Ways {
  kind: "serial" | "vnc";
  /** Where it is shown. Nothing is opened before that is there. */
  isReady: boolean;
  onSocket: (socket: WebSocket) => void;
  onEvent?: (event: ConsoleEvent) => void;
}

/**
 * Keeps a console of an instance open while its guest runs and the view is shown. One that ended stays so until somebody
 * asks, or the guest is started anew.
 */
export function useConnection(instance: Instance, { kind, isReady, onSocket, onEvent }: Ways) {
  const [phase, setPhase] = useState<Phase>({ at: "idle" });
  const connection = useRef<ConsoleConnection>(undefined);
  const latest = useRef({ instance, onSocket, onEvent });
  latest.current = { instance, onSocket, onEvent };
  const isOn = hasConsole(instance);

  useEffect(() => {
    if (!isReady || !isOn) return undefined;
    const made = new ConsoleConnection({
      ticket: ({ take }: Wish) =>
        consoleTicket(latest.current.instance, kind === "serial" && take ? { kind, take } : { kind }),
      onPhase: setPhase,
      onSocket: (socket) => latest.current.onSocket(socket),
      onEvent: (event) => latest.current.onEvent?.(event),
    });
    connection.current = made;
    made.start();
    return () => made.stop();
  }, [kind, isReady, isOn]);

  const hasEnded = useRef(false);
  hasEnded.current = phase.at === "ended";
  const { started_at } = instance.steps;
  // biome-ignore lint/correctness/useExhaustiveDependencies: another start is another guest
  useEffect(() => {
    if (hasEnded.current) connection.current?.start();
  }, [started_at]);

  return {
    phase,
    open: (wish?: Wish) => connection.current?.start(wish),
    send: (bytes: Uint8Array<ArrayBuffer>) => connection.current?.send(bytes),
  };
}
