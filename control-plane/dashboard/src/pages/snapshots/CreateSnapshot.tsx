import {
  Button,
  Group,
  MultiSelect,
  NumberInput,
  Radio,
  SegmentedControl,
  Select,
  Stack,
  Text,
  TextInput,
} from "@mantine/core";
import { useState } from "react";
import { ApiError, type Schemas } from "../../api/client.ts";
import { useDeployments } from "../../api/deployments.ts";
import { type Instance, useInstances } from "../../api/instances.ts";
import type { Operation } from "../../api/operations.ts";
import { useProjects } from "../../api/projects.ts";
import { allProjects, currentScope, thingScope } from "../../api/scope.ts";
import { useCreateSnapshot } from "../../api/snapshots.ts";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { count } from "../../ui/format.ts";
import { watchOperation } from "../../ui/OperationWatch.tsx";
import { SearchSelect } from "../../ui/SearchSelect.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { fits } from "../instances/state-words.ts";
import { commandFor, consistencies, nameProblem } from "./snapshot-words.ts";

type Consistency = keyof typeof consistencies;
type Of = "deployment" | "instances" | "label";

interface Props {
  opened: boolean;
  onClose: () => void;
  /** Called with the operation once the snapshot is under way. */
  onCreated?: ((operation: Operation) => void) | undefined;
  /** What it is to be taken of, where that is chosen already. */
  instances?: readonly Instance[];
  deployment?: Pick<Schemas["Deployment"], "id" | "name" | "project">;
}

/** Asks what a snapshot is to be taken of and how, and takes it. */
export default function CreateSnapshot(props: Props) {
  return (
    <Dialog opened={props.opened} onClose={props.onClose} title="Take a snapshot" size="lg">
      <Form {...props} />
    </Dialog>
  );
}

const shownNames = 6;

function Form({ onClose, onCreated, instances, deployment }: Props) {
  const [of, setOf] = useState<Of>("deployment");
  const [chosenDeployment, setDeployment] = useState<string | null>(null);
  const [chosenInstances, setInstances] = useState<string[]>([]);
  const [label, setLabel] = useState("");
  const scope = currentScope();
  const [labelProject, setLabelProject] = useState<string | null>(thingScope() ?? null);
  const [name, setName] = useState("");
  const [consistency, setConsistency] = useState<Consistency>("crash");
  const [maxPause, setMaxPause] = useState<number | string>("");
  const [error, setError] = useState<unknown>();
  const deployments = useDeployments();
  const create = useCreateSnapshot();
  const preset = instances !== undefined || deployment !== undefined;

  const target = deployment ?? deployments.data?.items.find(({ id }) => id === chosenDeployment);
  const picked = usePicked(of === "instances" && !preset, chosenInstances);
  const members = instances ?? picked;
  const projects = new Set(members.map(({ project }) => project));
  const asksInstances = instances !== undefined || (!preset && of === "instances");
  const asksLabel = !preset && of === "label";

  const select: Schemas["Select"] = asksInstances
    ? { instances: members.map(({ id }) => id) }
    : asksLabel
      ? { label: label.trim() }
      : { deployment: target?.id ?? "" };
  const project = asksInstances ? members[0]?.project : asksLabel ? (labelProject ?? undefined) : target?.project;
  const complete = asksInstances
    ? members.length > 0 && projects.size === 1
    : asksLabel
      ? /^[^=]+=/.test(label.trim())
      : target !== undefined;
  const badName = nameProblem(name);
  const pause = typeof maxPause === "number" ? maxPause : undefined;
  const command = commandFor(
    asksInstances ? (members.length === 1 ? members[0]?.name : undefined) : asksLabel ? undefined : target?.name,
    name,
    pause,
    consistency,
  );

  const choose = (chosen: Consistency) => {
    setConsistency(chosen);
    setError(undefined);
  };
  const submit = async () => {
    setError(undefined);
    try {
      const operation = await create.mutateAsync({
        project,
        request: {
          select,
          consistency,
          ...(name === "" ? {} : { name }),
          ...(pause === undefined ? {} : { max_pause_ms: pause }),
        },
      });
      watchOperation(operation);
      onClose();
      onCreated?.(operation);
    } catch (caught) {
      setError(caught);
    }
  };
  return (
    <DialogForm
      label="Take a snapshot"
      onSubmit={(event) => {
        event.preventDefault();
        if (complete && badName === null && !create.isPending) void submit();
      }}
      onClose={onClose}
      submit="Take the snapshot"
      busy={create.isPending}
      ready={complete && badName === null}
      focused={preset}
      command={badName === null ? command : null}
    >
      {deployment !== undefined && (
        <Text size="sm">
          Of all members of <b>{deployment.name}</b> that have a disk.
        </Text>
      )}
      {instances !== undefined && (
        <Text size="sm">
          Of {instances.length === 1 ? "" : `${count(instances.length)} instances: `}
          <b>
            {instances
              .slice(0, shownNames)
              .map((each) => each.name)
              .join(", ")}
          </b>
          {instances.length > shownNames ? ` and ${count(instances.length - shownNames)} more` : ""}.
        </Text>
      )}
      {!preset && (
        <>
          <SegmentedControl
            aria-label="What it is taken of"
            value={of}
            onChange={(value) => setOf(value as Of)}
            data={[
              { value: "deployment", label: "A deployment" },
              { value: "instances", label: "Some instances" },
              { value: "label", label: "By label" },
            ]}
          />
          {of === "deployment" && (
            <SearchSelect
              label="Deployment"
              placeholder={deployments.data?.items.length === 0 ? "There is none yet" : "Choose one"}
              data-autofocus
              limit={50}
              data={(deployments.data?.items ?? []).map((each) => ({
                value: each.id,
                label: scope === allProjects ? `${each.name} (${each.project})` : each.name,
              }))}
              value={chosenDeployment}
              onChange={setDeployment}
              nothingFoundMessage="No deployment has that name"
            />
          )}
          {of === "instances" && (
            <InstanceChoice value={chosenInstances} onChange={setInstances} showProject={scope === allProjects} />
          )}
          {of === "label" && (
            <Group gap="sm" align="flex-start">
              <TextInput
                flex={1}
                miw={180}
                label="Label"
                placeholder="tier=web"
                description="All instances of the project that have it."
                value={label}
                onChange={(event) => setLabel(event.currentTarget.value)}
              />
              {scope === allProjects && <ProjectOfLabel value={labelProject} onChange={setLabelProject} />}
            </Group>
          )}
        </>
      )}
      {projects.size > 1 && (
        <Text size="sm" c="red" role="alert">
          These are of {projects.size} projects. A snapshot is of one project: choose fewer.
        </Text>
      )}
      <TextInput
        label="Name"
        description="Left empty, the controller chooses one."
        placeholder="monday"
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
        error={badName}
        autoComplete="off"
      />
      <Radio.Group label="Consistency" value={consistency} onChange={(value) => choose(value as Consistency)}>
        <Stack gap={8} mt={4}>
          {Object.entries(consistencies).map(([value, { label, means }]) => (
            <Radio key={value} value={value} size="sm" label={label} description={means} />
          ))}
        </Stack>
      </Radio.Group>
      <NumberInput
        label="Longest pause"
        description="How long a write of a guest may be held. If a disk would take longer, nothing is published: all members or none."
        placeholder="500 ms"
        suffix=" ms"
        min={1}
        max={10000}
        allowDecimal={false}
        value={maxPause}
        onChange={setMaxPause}
      />
      <Text size="sm" c="dimmed">
        The guests run on. Instances that are failed, pending or being deleted are left out and counted; if the state of
        one is unknown, the snapshot is refused.
      </Text>
      {error !== undefined && <Refusal error={error} project={project} onPlain={() => choose("crash")} />}
    </DialogForm>
  );
}

/** Why it is not taken. Where a guest agent does not answer: of which guest, and the snapshot that needs none. */
function Refusal({ error, project, onPlain }: { error: unknown; project: string | undefined; onPlain: () => void }) {
  const silent = error instanceof ApiError && error.code === "no_guest_agent" ? error.problem.instance : undefined;
  return (
    <Stack gap="xs">
      <ErrorBox error={error} title={silent === undefined ? "The snapshot is not taken" : "A guest cannot be frozen"} />
      {typeof silent === "string" && (
        <Group gap="md">
          <Button size="compact-sm" variant="default" onClick={onPlain}>
            Choose {consistencies.crash.label.toLowerCase()}
          </Button>
          <Text size="sm">
            <ThingLink kind="instance" id={silent} name="Look at the instance" project={project} />
          </Text>
        </Group>
      )}
    </Stack>
  );
}

/** The instances of the given ids, as far as they are loaded. */
function usePicked(enabled: boolean, ids: readonly string[]): readonly Instance[] {
  const all = useInstances();
  if (!enabled) return [];
  const chosen = new Set(ids);
  return all.data?.items.filter(({ id }) => chosen.has(id)) ?? [];
}

function InstanceChoice({
  value,
  onChange,
  showProject,
}: {
  value: string[];
  onChange: (ids: string[]) => void;
  showProject: boolean;
}) {
  const all = useInstances();
  const able = all.data?.items.filter((instance) => fits("snapshot", instance)) ?? [];
  return (
    <MultiSelect
      label="Instances"
      placeholder={value.length === 0 ? "Choose some" : undefined}
      searchable
      limit={50}
      data={able.map((each) => ({ value: each.id, label: showProject ? `${each.name} (${each.project})` : each.name }))}
      value={value}
      onChange={onChange}
      nothingFoundMessage="No instance that has a disk has that name"
    />
  );
}

function ProjectOfLabel({ value, onChange }: { value: string | null; onChange: (project: string | null) => void }) {
  const projects = useProjects();
  return (
    <Select
      label="Project"
      description="Labels are searched in one."
      data={projects}
      value={value}
      onChange={onChange}
      allowDeselect={false}
    />
  );
}
