import { Select, type SelectProps } from "@mantine/core";
import { type KeyboardEvent, useRef } from "react";

interface SearchSelectProps extends Omit<SelectProps, "data"> {
  data: (string | { value: string; label: string })[];
  /** The list is there. One may type before. */
  isLoaded?: boolean;
}

/**
 * A choice from a list that is searched by typing, where Enter takes the marked option, or else the first that fits. It
 * never sends the form while something is typed that is not chosen yet.
 *
 * Mantine marks the first option, also when the list comes after what was typed (`selectFirstOptionOnChange` becomes
 * true). Yet a timer that starts with the opening of the list forgets which option is marked, and all may be typed before
 * it runs. So Enter looks at the list itself.
 */
export function SearchSelect({ isLoaded = true, ...props }: SearchSelectProps) {
  /** What was typed since the last choice. Mantine puts the label of what is chosen into the field without typing. */
  const typed = useRef("");
  const takeOnEnter = (event: KeyboardEvent<HTMLInputElement>) => {
    const isSearch = typed.current !== "" && typed.current === event.currentTarget.value;
    if (event.key !== "Enter" || event.nativeEvent.isComposing || !isSearch) return;
    event.preventDefault();
    event.stopPropagation();
    // A list that was closed with Escape has no id here. Nothing is taken then, and nothing is sent.
    const list = event.currentTarget.getAttribute("aria-controls");
    const options = list === null ? null : document.getElementById(list);
    const marked = options?.querySelector<HTMLElement>("[data-combobox-selected]");
    (marked ?? options?.querySelector<HTMLElement>("[role=option]:not([data-combobox-disabled])"))?.click();
  };
  return (
    <Select
      {...props}
      searchable
      selectFirstOptionOnChange={isLoaded}
      allowDeselect={false}
      onInput={(event) => {
        typed.current = event.currentTarget.value;
      }}
      onOptionSubmit={() => {
        typed.current = "";
      }}
      onKeyDownCapture={takeOnEnter}
    />
  );
}
