import { Autocomplete, Button, Code, Group, NumberInput, Radio, Select, Stack, TextInput } from "@mantine/core";
import { useState } from "react";
import { ApiError } from "../../api/client.ts";
import { useProjects } from "../../api/projects.ts";
import { type CreateToken, type Token, useCreateToken } from "../../api/tokens.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { Dialog } from "../../ui/Dialog.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { lifetimes } from "./lifetimes.ts";
import { Secret } from "./Secret.tsx";

interface Props {
  opened: boolean;
  onClose: () => void;
  /** Makes a project: a project begins with the first token of its tenants. */
  firstOfProject?: boolean;
}

/** Makes a token and shows it once. */
export function NewToken({ opened, onClose, firstOfProject = false }: Props) {
  return (
    <Dialog opened={opened} onClose={onClose} title={firstOfProject ? "New project" : "New token"}>
      <Form onClose={onClose} firstOfProject={firstOfProject} />
    </Dialog>
  );
}

type Role = CreateToken["role"];

const roles: readonly { value: Role; label: string; description: string }[] = [
  { value: "tenant", label: "Tenant", description: "Sees and steers one project." },
  { value: "admin", label: "Operator", description: "Sees and steers everything: all projects, nodes, tokens." },
  { value: "node", label: "Node", description: "Lets compute hosts join the cluster. It can do nothing else." },
];

function Form({ onClose, firstOfProject }: { onClose: () => void; firstOfProject: boolean }) {
  const projects = useProjects();
  const create = useCreateToken();
  const [role, setRole] = useState<Role>("tenant");
  const [name, setName] = useState("");
  const [project, setProject] = useState(firstOfProject ? "" : "default");
  const [lifetime, setLifetime] = useState("");
  const [uses, setUses] = useState<number | string>(1);
  if (create.data !== undefined) return <Made token={create.data} onClose={onClose} />;
  const at = (pointer: string) => {
    const errors = create.error instanceof ApiError ? create.error.errors : [];
    return errors.find((error) => error.pointer === pointer)?.detail;
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        create.mutate({
          role,
          ...(name === "" ? {} : { name }),
          ...(role === "tenant" ? { project } : {}),
          ...(role === "node" && typeof uses === "number" ? { uses } : {}),
          ...(lifetime === "" ? {} : { ttl_s: Number(lifetime) }),
        });
      }}
    >
      <Stack gap="md">
        {firstOfProject ? (
          <TextInput
            label="Name of the project"
            description="A project begins with its first token, which is made now. Whoever has it sees and steers this project only."
            value={project}
            onChange={(event) => setProject(event.currentTarget.value)}
            error={at("/project")}
            autoComplete="off"
            data-autofocus
            required
          />
        ) : (
          <Radio.Group label="What may it do?" value={role} onChange={(value) => setRole(value as Role)}>
            <Stack gap="xs" mt={6}>
              {roles.map((each) => (
                <Radio key={each.value} value={each.value} label={each.label} description={each.description} />
              ))}
            </Stack>
          </Radio.Group>
        )}
        {role === "tenant" && !firstOfProject && (
          <Autocomplete
            label="Project"
            description="A project begins with its first token: a new name makes one."
            data={projects}
            value={project}
            onChange={setProject}
            error={at("/project")}
            required
          />
        )}
        {role === "node" && (
          <NumberInput
            label="Nodes that may join with it"
            min={1}
            value={uses}
            onChange={setUses}
            error={at("/uses")}
            allowDecimal={false}
          />
        )}
        <TextInput
          label={firstOfProject ? "Name of its first token" : "Name"}
          description="Says in operations and events who did it. One is made up if this is empty."
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          error={at("/name")}
          autoComplete="off"
        />
        <Select
          label="Good for"
          data={lifetimes}
          value={lifetime}
          onChange={(value) => setLifetime(value ?? "")}
          allowDeselect={false}
          error={at("/ttl_s")}
        />
        {create.error !== null && <ErrorBox error={create.error} title="The token was not made" />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button type="submit" loading={create.isPending}>
            {firstOfProject ? "Make the project" : "Make the token"}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function Made({ token, onClose }: { token: Token; onClose: () => void }) {
  const join = `muster-agent run --data-dir /var/lib/muster --controller ${location.origin} --join-token TOKEN --listen IP:7771`;
  return (
    <Stack>
      <Secret value={token.token ?? ""} what="token">
        {token.role === "node" ? (
          <Stack gap={6}>
            <span>On the new node, with its own address:</span>
            <Code>
              <CopyId value={join.replace("TOKEN", token.token ?? "")} label="join command">
                {join}
              </CopyId>
            </Code>
          </Stack>
        ) : (
          <>
            On the command line: <Code>muster login {location.origin}</Code>, or put it into <Code>MUSTER_TOKEN</Code>.
          </>
        )}
      </Secret>
      <Group justify="flex-end">
        <Button variant="default" onClick={onClose}>
          Done
        </Button>
      </Group>
    </Stack>
  );
}
