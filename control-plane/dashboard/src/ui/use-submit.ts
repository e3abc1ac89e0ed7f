import { type FormEvent, useState } from "react";

/**
 * The state of a form that does something when it is sent: `act` runs once at a time, and only when the form is `ready`.
 * What it throws is kept to be shown until it is sent again.
 */
export function useSubmit(ready: boolean, act: () => Promise<unknown>) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const run = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await act();
    } catch (caught) {
      setError(caught);
    } finally {
      setBusy(false);
    }
  };
  const onSubmit = (event: FormEvent) => {
    event.preventDefault();
    if (ready && !busy) void run();
  };
  return { busy, error, onSubmit };
}
