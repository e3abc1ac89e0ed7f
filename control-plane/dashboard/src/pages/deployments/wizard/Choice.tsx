import { Input, SegmentedControl } from "@mantine/core";
import { useId } from "react";

interface Props {
  label: string;
  description?: string | undefined;
  error?: string | undefined;
  value: string;
  onChange: (value: string) => void;
  data: { value: string; label: string }[];
  disabled?: boolean;
}

/** One of a few words, side by side: the tab key comes to it, arrows choose. */
export function Choice({ label, description, error, data, ...rest }: Props) {
  const id = useId();
  return (
    <Input.Wrapper label={label} labelElement="div" labelProps={{ id }} description={description} error={error}>
      <SegmentedControl fullWidth size="sm" mt={4} data={data} {...rest} aria-labelledby={id} />
    </Input.Wrapper>
  );
}
