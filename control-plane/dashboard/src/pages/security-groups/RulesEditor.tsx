import { ActionIcon, Alert, Button, Group, Menu, Select, Stack, Text, TextInput } from "@mantine/core";
import { IconPlus, IconX } from "@tabler/icons-react";
import { useSecurityGroups } from "../../api/security-groups.ts";
import { SearchSelect } from "../../ui/SearchSelect.tsx";
import classes from "./RulesEditor.module.css";
import { errorKey, hasPorts, itself, newRow, type RowErrors, type RuleRow, type Side } from "./rule-rows.ts";

interface Props {
  rows: readonly RuleRow[];
  onChange: (rows: RuleRow[]) => void;
  errors: RowErrors;
  /** The project whose groups can be named. */
  project: string | undefined;
  /** Id of the group that is edited, if it has one. */
  self?: string;
}

const mostRules = 100;

const presets: { title: string; row: Partial<RuleRow> }[] = [
  { title: "SSH in (TCP 22)", row: { ports: "22" } },
  { title: "HTTP in (TCP 80)", row: { ports: "80" } },
  { title: "HTTPS in (TCP 443)", row: { ports: "443" } },
  { title: "Ping in (ICMP)", row: { protocol: "icmp" } },
  { title: "Everything in from cards with this group", row: { protocol: "any", side: "group" } },
  { title: "Everything out", row: { direction: "out", protocol: "any" } },
];

/** Edits the rules of a security group, all at once. */
export function RulesEditor({ rows, onChange, errors, project, self }: Props) {
  const groups = useSecurityGroups();
  const others = (groups.data?.items ?? []).filter(
    (group) => group.id !== self && (project === undefined || group.project === project),
  );
  const offered = [
    { value: itself, label: "this group" },
    ...others.map(({ id, name }) => ({ value: id, label: name })),
  ];
  const change = (id: number, part: Partial<RuleRow>) =>
    onChange(rows.map((row) => (row.id === id ? { ...row, ...part } : row)));
  const add = (row: Partial<RuleRow>) => onChange([...rows, newRow(row)]);
  return (
    <Stack gap="sm">
      {rows.length === 0 && (
        <Alert title="Nothing passes">
          A card that has only this group is shut: nothing reaches it, and it reaches nothing. Answers to what a rule
          lets through always pass, so a rule for one direction is enough.
        </Alert>
      )}
      <ol className={classes.rows} aria-label="Rules">
        {rows.map((row, place) => {
          const name = `of rule ${place + 1}`;
          const error = (field: "direction" | "protocol" | "ports" | "side") => errors[errorKey(place, field)];
          return (
            <li key={row.id} className={classes.row}>
              <Select
                size="xs"
                aria-label={`Direction ${name}`}
                data={[
                  { value: "in", label: "in" },
                  { value: "out", label: "out" },
                ]}
                value={row.direction}
                onChange={(value) => change(row.id, { direction: value as RuleRow["direction"] })}
                error={error("direction")}
                allowDeselect={false}
              />
              <Select
                size="xs"
                aria-label={`Protocol ${name}`}
                data={[
                  { value: "tcp", label: "TCP" },
                  { value: "udp", label: "UDP" },
                  { value: "icmp", label: "ICMP" },
                  { value: "any", label: "everything" },
                ]}
                value={row.protocol}
                onChange={(value) => change(row.id, { protocol: value as RuleRow["protocol"] })}
                error={error("protocol")}
                allowDeselect={false}
              />
              {/* Ports that do not count are not shown, unless the controller has something to say about them. */}
              <TextInput
                size="xs"
                aria-label={`Ports ${name}`}
                placeholder={hasPorts(row) ? "all ports" : "no ports"}
                value={hasPorts(row) ? row.ports : ""}
                onChange={(event) => change(row.id, { ports: event.currentTarget.value })}
                error={error("ports")}
                disabled={!hasPorts(row)}
                autoComplete="off"
                spellCheck={false}
              />
              <div className={classes.side}>
                <div>
                  <Select
                    size="xs"
                    aria-label={`Other side ${name}`}
                    data={[
                      { value: "any", label: row.direction === "in" ? "from everywhere" : "to everywhere" },
                      { value: "range", label: row.direction === "in" ? "from addresses" : "to addresses" },
                      { value: "group", label: row.direction === "in" ? "from cards with" : "to cards with" },
                    ]}
                    value={row.side}
                    onChange={(value) => change(row.id, { side: value as Side })}
                    error={row.side === "any" ? error("side") : undefined}
                    allowDeselect={false}
                  />
                </div>
                {row.side === "range" && (
                  <TextInput
                    size="xs"
                    aria-label={`Addresses ${name}`}
                    placeholder="192.0.2.0/24"
                    value={row.range}
                    onChange={(event) => change(row.id, { range: event.currentTarget.value })}
                    error={error("side")}
                    autoComplete="off"
                    spellCheck={false}
                  />
                )}
                {row.side === "group" && (
                  <div>
                    <SearchSelect
                      size="xs"
                      aria-label={`Group ${name}`}
                      data={offered}
                      value={row.group}
                      onChange={(value) => change(row.id, { group: value ?? itself })}
                      error={error("side")}
                    />
                  </div>
                )}
              </div>
              <ActionIcon
                className={classes.remove}
                variant="subtle"
                color="gray"
                size={30}
                aria-label={`Remove rule ${place + 1}`}
                onClick={() => onChange(rows.filter(({ id }) => id !== row.id))}
              >
                <IconX size={15} />
              </ActionIcon>
            </li>
          );
        })}
      </ol>
      <Group gap="xs">
        <Menu position="bottom-start">
          <Menu.Target>
            <Button
              size="compact-sm"
              variant="default"
              leftSection={<IconPlus size={14} />}
              disabled={rows.length >= mostRules}
            >
              Add a rule
            </Button>
          </Menu.Target>
          <Menu.Dropdown>
            {presets.map(({ title, row }) => (
              <Menu.Item key={title} onClick={() => add(row)}>
                {title}
              </Menu.Item>
            ))}
            <Menu.Divider />
            <Menu.Item onClick={() => add({})}>Another rule</Menu.Item>
          </Menu.Dropdown>
        </Menu>
        {rows.length >= mostRules && (
          <Text size="xs" c="dimmed">
            A group has at most {mostRules} rules.
          </Text>
        )}
      </Group>
    </Stack>
  );
}
