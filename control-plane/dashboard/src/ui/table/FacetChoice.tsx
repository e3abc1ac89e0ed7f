import { Badge, Button, Checkbox, Popover, Stack, Text } from "@mantine/core";
import { IconChevronDown } from "@tabler/icons-react";

interface Props {
  title: string;
  options: readonly string[];
  chosen: readonly string[];
  onChange: (values: string[]) => void;
}

/** A button that opens a choice of values to filter by. */
export function FacetChoice({ title, options, chosen, onChange }: Props) {
  return (
    <Popover position="bottom-start" shadow="md" trapFocus>
      <Popover.Target>
        <Button
          variant={chosen.length > 0 ? "light" : "default"}
          size="xs"
          rightSection={
            chosen.length > 0 ? (
              <Badge size="xs" circle>
                {chosen.length}
              </Badge>
            ) : (
              <IconChevronDown size={13} />
            )
          }
        >
          {title}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        <Stack gap={8} mah={320} style={{ overflowY: "auto" }}>
          {options.length === 0 && (
            <Text size="xs" c="dimmed">
              Nothing to choose from.
            </Text>
          )}
          {options.map((option) => (
            <Checkbox
              key={option}
              size="xs"
              label={option}
              checked={chosen.includes(option)}
              onChange={(event) =>
                onChange(event.currentTarget.checked ? [...chosen, option] : chosen.filter((each) => each !== option))
              }
            />
          ))}
          {chosen.length > 0 && (
            <Button size="compact-xs" variant="subtle" onClick={() => onChange([])}>
              Clear
            </Button>
          )}
        </Stack>
      </Popover.Dropdown>
    </Popover>
  );
}
