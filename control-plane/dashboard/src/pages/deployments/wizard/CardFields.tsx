import {
  ActionIcon,
  Button,
  Group,
  MultiSelect,
  Select,
  SimpleGrid,
  Stack,
  TagsInput,
  Text,
  TextInput,
} from "@mantine/core";
import { IconPlus, IconX } from "@tabler/icons-react";
import { defaultName, type Network, useNetworks } from "../../../api/networks.ts";
import { useSecurityGroups } from "../../../api/security-groups.ts";
import { Choice } from "./Choice.tsx";
import { ClosedPorts } from "./ClosedPorts.tsx";
import { type Card, cardOf, cardText, mostCards, usualCard } from "./cards.ts";
import type { FieldsProps } from "./Fields.tsx";
import { sourceKindOf } from "./form.ts";
import classes from "./Wizard.module.css";

/** Which networks each member has a card in, and how it is reached there. */
export function CardFields(props: FieldsProps) {
  const { form, change, errors, project } = props;
  const networks = useNetworks();
  const offered = (networks.data?.items ?? []).filter((each) => project === undefined || each.project === project);
  const cards = form.card.map(cardOf);
  const set = (changed: readonly Card[]) => change({ card: changed.map(cardText) });
  const unused = [defaultName, ...offered.map(({ name }) => name)].find(
    (name) => !cards.some(({ network }) => network === name),
  );
  return (
    <Stack gap="sm">
      <Choice
        label="Network cards of each"
        description={means(form.cards, sourceKindOf(form) === "snapshot")}
        value={form.cards}
        onChange={(kind) =>
          change({ cards: kind, card: kind === "chosen" && form.card.length === 0 ? [cardText(usualCard)] : form.card })
        }
        error={errors.cards}
        data={[
          { value: "usual", label: "As usual" },
          { value: "chosen", label: "Choose" },
          { value: "none", label: "None" },
        ]}
      />
      {form.cards === "chosen" && (
        <>
          {cards.map((card, place) => (
            <OneCard
              // biome-ignore lint/suspicious/noArrayIndexKey: a card is known by its place, as in the request
              key={place}
              {...props}
              card={card}
              place={place}
              networks={offered}
              onChange={(part) => set(cards.map((each, n) => (n === place ? { ...each, ...part } : each)))}
              onRemove={cards.length > 1 ? () => set(cards.filter((_, n) => n !== place)) : undefined}
            />
          ))}
          {cards.length < mostCards && unused !== undefined && (
            <Button
              size="compact-sm"
              variant="default"
              leftSection={<IconPlus size={14} />}
              onClick={() => set([...cards, { ...usualCard, network: unused }])}
              style={{ alignSelf: "flex-start" }}
            >
              Another card
            </Button>
          )}
        </>
      )}
    </Stack>
  );
}

function means(kind: string, fork: boolean): string {
  if (kind === "none") return "Members are reached by their console and their disk only.";
  if (kind === "chosen") return "Each card is in another network. Every member gets addresses of its own.";
  return fork
    ? "In the same networks as the deployment that was forked, with the same groups and published ports, and new addresses."
    : "One card in the network default: it reaches everything, and is reached by members of the same network only.";
}

function OneCard({
  card,
  place,
  networks,
  form,
  errors,
  project,
  onChange,
  onRemove,
}: FieldsProps & {
  card: Card;
  place: number;
  networks: readonly Network[];
  onChange: (part: Partial<Card>) => void;
  onRemove: (() => void) | undefined;
}) {
  const groups = useSecurityGroups();
  const names = (groups.data?.items ?? [])
    .filter((group) => project === undefined || group.project === project)
    .map(({ name }) => name);
  const network = networks.find(({ name }) => name === card.network);
  const mode = network?.mode ?? "nat";
  const single = sourceKindOf(form) !== "snapshot" && form.count.trim() === "1";
  const error = (field: keyof Card) => errors[`card/${place}/${field}`];
  const at = (field: keyof Card) => `card/${place}/${field}`;
  const label = `Card ${place + 1}`;
  return (
    <fieldset className={classes.card} aria-label={label}>
      <Group justify="space-between" mb={4}>
        <Text size="sm" fw={600}>
          {label}
        </Text>
        {onRemove !== undefined && (
          <ActionIcon
            variant="subtle"
            color="gray"
            size={26}
            aria-label={`Remove card ${place + 1}`}
            onClick={onRemove}
          >
            <IconX size={15} />
          </ActionIcon>
        )}
      </Group>
      <Stack gap="sm">
        <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
          <Select
            label="Network"
            data={[...new Set([defaultName, ...networks.map(({ name }) => name), card.network])].map((name) => ({
              value: name,
              label: labelOf(name, networks),
            }))}
            value={card.network}
            onChange={(value) => onChange(inNetwork(value ?? defaultName, networks))}
            error={error("network")}
            allowDeselect={false}
            searchable
            data-field={at("network")}
          />
          <TextInput
            label="Address"
            placeholder={mode === "bridge" ? "given by the hosts' network" : single ? "a free one" : "each a free one"}
            value={single ? card.address : ""}
            onChange={(event) => onChange({ address: event.currentTarget.value })}
            error={error("address")}
            disabled={!single || mode === "bridge"}
            autoComplete="off"
            spellCheck={false}
            data-field={at("address")}
          />
        </SimpleGrid>
        {mode !== "bridge" && (
          <MultiSelect
            label="Security groups"
            description="What reaches the card, and what leaves it."
            data={[...new Set([defaultName, ...names, ...card.groups])]}
            value={card.groups}
            onChange={(value) => onChange({ groups: value })}
            error={error("groups")}
            searchable
            nothingFoundMessage="No group has this name"
            data-field={at("groups")}
          />
        )}
        {mode === "nat" && (
          <TagsInput
            label="Published ports"
            description="Reached from outside by a port of the node. Write 22 or 53/udp and press Enter."
            placeholder={card.ports.length === 0 ? "none" : undefined}
            value={card.ports}
            onChange={(ports) => onChange({ ports })}
            error={error("ports")}
            acceptValueOnBlur
            splitChars={[",", " "]}
            data-field={at("ports")}
          />
        )}
        {mode === "nat" && (
          <ClosedPorts card={card} project={project} onGroups={(changed) => onChange({ groups: changed })} />
        )}
      </Stack>
    </fieldset>
  );
}

/** What changes when a card is in another network: it has other addresses, and perhaps no groups or published ports. */
function inNetwork(name: string, networks: readonly Network[]): Partial<Card> {
  const mode = networks.find((network) => network.name === name)?.mode ?? "nat";
  return {
    network: name,
    address: "",
    ...(mode === "nat" ? {} : { ports: [] }),
    ...(mode === "bridge" ? { groups: usualCard.groups } : {}),
  };
}

function labelOf(name: string, networks: readonly Network[]): string {
  const network = networks.find((each) => each.name === name);
  if (network === undefined) return name === defaultName ? `${name} (made when it is first used)` : name;
  return `${name} (${[network.mode, network.subnet_v4 ?? network.bridge].filter(Boolean).join(", ")})`;
}
