import { Select, type SelectProps } from "@mantine/core";
import type { KeyboardEvent } from "react";

/** `data` has what is chosen, too. */
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
  const labelOf = (option: SearchSelectProps["data"][number]) => (typeof option === "string" ? option : option.label);
  const chosen = props.data.find((option) => (typeof option === "string" ? option : option.value) === props.value);
  const takeOnEnter = (event: KeyboardEvent<HTMLInputElement>) => {
    const { value: typed } = event.currentTarget;
    const list = event.currentTarget.getAttribute("aria-controls");
    const isSearch = list !== null && typed !== "" && (chosen === undefined || typed !== labelOf(chosen));
    if (event.key !== "Enter" || event.nativeEvent.isComposing || !isSearch) return;
    event.preventDefault();
    event.stopPropagation();
    const options = document.getElementById(list);
    const marked = options?.querySelector<HTMLElement>("[data-combobox-selected]");
    (marked ?? options?.querySelector<HTMLElement>("[role=option]"))?.click();
  };
  return (
    <Select
      {...props}
      searchable
      selectFirstOptionOnChange={isLoaded}
      allowDeselect={false}
      onKeyDownCapture={takeOnEnter}
    />
  );
}
