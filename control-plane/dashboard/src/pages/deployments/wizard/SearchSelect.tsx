import { Select, type SelectProps } from "@mantine/core";

/**
 * A choice from a list that is searched by typing, where Enter takes the first option that fits. One may type before the
 * list is there: Mantine marks the first option anew when `selectFirstOptionOnChange` becomes true.
 */
export function SearchSelect({ isLoaded, ...props }: SelectProps & { isLoaded: boolean }) {
  return <Select {...props} searchable selectFirstOptionOnChange={isLoaded} required />;
}
