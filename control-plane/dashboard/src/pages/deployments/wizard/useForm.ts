import { useEffect, useRef, useState } from "react";
import { useSearchState } from "../../../ui/search-state.ts";
import { emptyForm, type Form } from "./form.ts";

/**
 * The state of the form. What is typed counts at once; the URL follows when the typing pauses, and on a busy machine it
 * follows late. So a URL that this form wrote never changes the form, which may have been typed into since.
 */
export function useForm(): [Form, (changes: Partial<Form>) => void] {
  const [url, setUrl] = useSearchState(emptyForm);
  const [form, setForm] = useState<Form>(url);
  const seen = useRef(JSON.stringify(url));
  /** What the URL was told to become and has not become yet, oldest first. */
  const told = useRef<string[]>([]);
  useEffect(() => {
    const text = JSON.stringify(url);
    if (text === seen.current) return;
    seen.current = text;
    const own = told.current.indexOf(text);
    if (own >= 0) {
      // The router may leave out those before it.
      told.current.splice(0, own + 1);
      return;
    }
    // Somebody went back or followed a link to this page.
    told.current = [];
    setForm(url);
  }, [url]);
  useEffect(() => {
    const text = JSON.stringify(form);
    if (text === (told.current.at(-1) ?? seen.current)) return undefined;
    const timer = setTimeout(() => {
      told.current.push(text);
      setUrl(form);
    }, 250);
    return () => clearTimeout(timer);
  }, [form, setUrl]);
  return [form, (changes) => setForm((before) => ({ ...before, ...changes }))];
}
