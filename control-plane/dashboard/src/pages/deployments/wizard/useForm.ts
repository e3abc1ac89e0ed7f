import { useEffect, useRef, useState } from "react";
import { useSearchState } from "../../../ui/search-state.ts";
import { emptyForm, type Form } from "./form.ts";

/** The state of the form. What is typed counts at once; the URL follows when the typing pauses. */
export function useForm(): [Form, (changes: Partial<Form>) => void] {
  const [url, setUrl] = useSearchState(emptyForm);
  const [form, setForm] = useState<Form>(url);
  const written = useRef(JSON.stringify(url));
  useEffect(() => {
    const text = JSON.stringify(url);
    if (text === written.current) return;
    // Somebody went back or followed a link to this page.
    written.current = text;
    setForm(url);
  }, [url]);
  useEffect(() => {
    const text = JSON.stringify(form);
    if (text === written.current) return undefined;
    const timer = setTimeout(() => {
      written.current = text;
      setUrl(form);
    }, 250);
    return () => clearTimeout(timer);
  }, [form, setUrl]);
  return [form, (changes) => setForm((before) => ({ ...before, ...changes }))];
}
