import { Button, Code, Group, Loader, Modal, NumberInput, Select, Stack, Text, TextInput } from "@mantine/core";
import { useRef, useState } from "react";
import { type Node, useNodes, useNodeToken } from "../../api/nodes.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import classes from "./AddNode.module.css";
import { joinCommand } from "./advice.ts";

/** Makes a token for new nodes, shows the command that joins one, and waits for it. */
export function AddNode({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Add a node" size="lg" closeButtonProps={{ "aria-label": "Close" }}>
      {opened && <Steps onClose={onClose} />}
    </Modal>
  );
}

const lifetimes = [
  { value: "3600", label: "1 hour" },
  { value: "86400", label: "1 day" },
  { value: "604800", label: "7 days" },
];

function Steps({ onClose }: { onClose: () => void }) {
  const [address, setAddress] = useState("");
  const [name, setName] = useState("");
  const [uses, setUses] = useState(1);
  const [ttl, setTtl] = useState("3600");
  const make = useNodeToken();
  const token = make.data;
  const command = joinCommand(token?.token ?? "", window.location.origin, address, uses === 1 ? name : "");
  return (
    <Stack gap="md">
      <Text size="sm">
        A node is a Linux host with libvirt, QEMU and <code>/dev/fuse</code>, on which <code>muster-agent</code> runs as
        root. It has to reach this controller, and the other nodes have to reach it.{" "}
        <code className="nowrap">muster-agent check</code> on the host tells what it lacks.
      </Text>
      <Group gap="sm" align="flex-start" grow preventGrowOverflow={false} wrap="wrap">
        <TextInput
          label="Address of the host"
          description="Where other nodes reach it."
          placeholder="192.0.2.11"
          value={address}
          onChange={(event) => setAddress(event.currentTarget.value)}
          data-autofocus
          autoComplete="off"
          miw={200}
        />
        <TextInput
          label="Name"
          description="The host's own if left out."
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          disabled={uses !== 1}
          autoComplete="off"
          miw={200}
        />
      </Group>
      {token === undefined ? (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            make.mutate({ uses, ttlS: Number(ttl) });
          }}
        >
          <Stack gap="md">
            <Group gap="sm" align="flex-end">
              <NumberInput
                label="Nodes that may join with it"
                value={uses}
                onChange={(value) => setUses(Math.max(1, Math.min(1000, Number(value) || 1)))}
                min={1}
                max={1000}
                w={200}
              />
              <Select
                label="The token is good for"
                data={lifetimes}
                value={ttl}
                onChange={(value) => setTtl(value ?? "3600")}
                allowDeselect={false}
                w={160}
              />
            </Group>
            {make.error !== null && <ErrorBox error={make.error} title="The token could not be made" />}
            <Group justify="flex-end">
              <Button type="submit" loading={make.isPending}>
                Make the token
              </Button>
            </Group>
          </Stack>
        </form>
      ) : (
        <>
          <div>
            <Text size="sm" fw={600} mb={4}>
              Run this on the host, as root
            </Text>
            <div className={classes.command}>
              {/* biome-ignore lint/a11y/noNoninteractiveTabindex: so that it can be scrolled by keyboard */}
              <pre tabIndex={0}>{command}</pre>
              <div className={classes.copy}>
                <CopyId value={command} bare label="command" />
              </div>
            </div>
            <Text size="xs" c="dimmed" mt={4}>
              The token is shown only now. It is good for {uses === 1 ? "one node" : `${uses} nodes`}, and ends{" "}
              <TimeAgo time={token.expires_at} />. Add{" "}
              <Code fz="xs" className="nowrap">
                --cpus
              </Code>{" "}
              and{" "}
              <Code fz="xs" className="nowrap">
                --memory
              </Code>{" "}
              to say how much instances may use.
            </Text>
          </div>
          <Joined since={token.created_at} />
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Close
            </Button>
          </Group>
        </>
      )}
    </Stack>
  );
}

/** The nodes that have joined since the token was made. */
function Joined({ since }: { since: string }) {
  const nodes = useNodes();
  const before = useRef<ReadonlySet<string>>(undefined);
  if (before.current === undefined && nodes.data !== undefined) {
    before.current = new Set(nodes.data.items.filter((node) => node.created_at < since).map(({ id }) => id));
  }
  const fresh: Node[] = nodes.data?.items.filter(({ id }) => before.current?.has(id) === false) ?? [];
  return (
    <div role="status">
      {fresh.length === 0 ? (
        <Group gap={8}>
          <Loader size={14} />
          <Text size="sm">Waiting for the node to join …</Text>
        </Group>
      ) : (
        fresh.map((node) => (
          <Group key={node.id} gap={8}>
            <ToneIcon tone={node.state === "ready" ? "good" : "busy"} />
            <Text size="sm">
              <ThingLink kind="node" id={node.id} name={node.name} /> has joined
            </Text>
          </Group>
        ))
      )}
    </div>
  );
}
