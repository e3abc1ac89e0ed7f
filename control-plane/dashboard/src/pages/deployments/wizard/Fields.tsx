import { MultiSelect, SimpleGrid, Stack, TagsInput, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type Image, useImages } from "../../../api/images.ts";
import { useIsOperator } from "../../../api/me.ts";
import { nodesQuery } from "../../../api/nodes.ts";
import { bytes } from "../../../ui/format.ts";
import { sizeOf } from "../../../ui/size.ts";
import { firmwareText, firmwareWords } from "../../images/words.ts";
import { Choice } from "./Choice.tsx";
import { emptyForm, type Field, type Form, sourceKindOf } from "./form.ts";

export interface FieldsProps {
  form: Form;
  change: (changes: Partial<Form>) => void;
  /** What is wrong, by field. */
  errors: Partial<Record<Field, string>>;
  /** The project it goes into; undefined for tenants, who have one. */
  project: string | undefined;
}

type TextField = { [F in keyof Form]: Form[F] extends string ? F : never }[keyof Form];

function Typed({
  field,
  label,
  description,
  placeholder,
  numeric = false,
  below = false,
  form,
  change,
  errors,
}: FieldsProps & {
  field: TextField;
  label: string;
  description?: string | undefined;
  placeholder?: string;
  numeric?: boolean;
  /** The description stands below, so that the field stays level with its neighbour. */
  below?: boolean;
}) {
  return (
    <TextInput
      label={label}
      description={description}
      {...(below ? { inputWrapperOrder: ["label", "input", "description", "error"] as const } : {})}
      placeholder={placeholder}
      value={form[field]}
      onChange={(event) => change({ [field]: event.currentTarget.value })}
      error={errors[field]}
      inputMode={numeric ? "numeric" : undefined}
      autoComplete="off"
      spellCheck={false}
      data-field={field}
    />
  );
}

/** Two fields beside each other. */
function Pair({ children }: { children: React.ReactNode }) {
  return (
    <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
      {children}
    </SimpleGrid>
  );
}

/** Name, number and size of the members. */
export function MemberFields(props: FieldsProps) {
  const { form, change, errors, project } = props;
  const fork = sourceKindOf(form) === "snapshot";
  const files = form.runtime === "none";
  const least = useChosenImage(form, project)?.min_memory_bytes ?? 0;
  // Where nothing else is asked for, the API raises the default by itself.
  const raised = sizeOf(form.memory || emptyForm.memory) === sizeOf(emptyForm.memory);
  const needed =
    least > 512 * 1024 ** 2 ? `The image needs ${bytes(least)}${raised ? ", so they get that" : ""}.` : undefined;
  return (
    <Stack gap="sm">
      <Typed
        {...props}
        field="name"
        label="Name"
        placeholder="made up if empty"
        description="Its members are called NAME.0, NAME.1, …"
      />
      <Pair>
        {!fork && <Typed {...props} field="count" label="Members" numeric />}
        <Typed {...props} field="least" label="Start only if so many fit" placeholder="all" numeric />
      </Pair>
      <Choice
        label="Runtime"
        value={form.runtime}
        onChange={(runtime) => change({ runtime })}
        error={errors.runtime}
        description={
          files
            ? "Makes only the disk file of each member, without a virtual machine."
            : "Each member is a virtual machine."
        }
        data={[
          { value: "libvirt", label: "Virtual machine" },
          { value: "none", label: "Disk file only" },
        ]}
      />
      {!files && (
        <Pair>
          <Typed {...props} field="cpus" label="CPUs of each" numeric />
          <Typed
            {...props}
            field="memory"
            label="Memory of each"
            placeholder={emptyForm.memory}
            description={needed}
            below
          />
        </Pair>
      )}
      <Typed {...props} field="disk" label="Disk of each" placeholder="as large as its source" />
      {!files && <FirmwareFields {...props} />}
    </Stack>
  );
}

/** The image that the members start from, if it is one, and its facts are loaded. */
function useChosenImage({ image }: Form, project: string | undefined): Image | undefined {
  const named = ({ id, name }: Image) => image !== "" && (name === image || id === image);
  return useImages().data?.items.find((each) => named(each) && (project === undefined || each.project === project));
}

/** What starts the boot loaders of the members, and whether they have a TPM. */
function FirmwareFields({ form, change, errors, project }: FieldsProps) {
  const image = useChosenImage(form, project);
  const fork = sourceKindOf(form) === "snapshot";
  return (
    <>
      <Choice
        label="Firmware"
        description={firmwareMeans(form.firmware, fork, image)}
        value={form.firmware}
        onChange={(firmware) => change({ firmware })}
        error={errors.firmware}
        data={[
          { value: "auto", label: "Automatic" },
          ...Object.entries(firmwareWords).map(([value, label]) => ({ value, label })),
        ]}
      />
      <Choice
        label="TPM of each"
        description="What is in it stays on the node of the member: it is in no snapshot, and a fork begins with an empty one."
        value={fork || form.tpm === "yes" ? form.tpm : "usual"}
        onChange={(tpm) => change({ tpm })}
        error={errors.tpm}
        data={
          fork
            ? [
                { value: "usual", label: "As its source" },
                { value: "yes", label: "Yes" },
                { value: "no", label: "No" },
              ]
            : [
                { value: "usual", label: "No" },
                { value: "yes", label: "Yes" },
              ]
        }
      />
    </>
  );
}

function firmwareMeans(firmware: string, fork: boolean, image: Image | undefined): string {
  switch (firmware) {
    case "auto":
      if (fork) return "The one that the guests of the snapshot had.";
      return image === undefined
        ? "The one that its source needs."
        : `${firmwareText(image.firmware)}, as the image says.`;
    case "bios":
      return "It runs the boot code in the first sector of the disk.";
    case "uefi":
      return "It starts what is on the system partition. Its variables are a small disk of each member, nvram.";
    default:
      return "UEFI that starts only boot loaders signed with a key of Microsoft.";
  }
}

/** When a member counts as ready, and what becomes of it otherwise. */
export function ReadyFields(props: FieldsProps) {
  const { form, change, errors } = props;
  if (form.runtime === "none") return null;
  return (
    <Stack gap="sm">
      <Choice
        label="A member is ready when"
        value={form.probe}
        onChange={(probe) => change({ probe })}
        error={errors.probe}
        data={[
          { value: "running", label: "it runs" },
          { value: "console", label: "console says so" },
          { value: "guest_agent", label: "agent answers" },
        ]}
      />
      {form.probe === "console" && (
        <Typed {...props} field="marker" label="Text on its console" placeholder="MUSTER-READY" />
      )}
      <Pair>
        <Typed {...props} field="timeout" label="Within seconds" placeholder="as the cluster says" numeric />
        <Choice
          label="If it is not ready in time"
          value={form.late}
          onChange={(late) => change({ late })}
          error={errors.late}
          data={[
            { value: "keep", label: "it runs on" },
            { value: "stop", label: "cut its power" },
          ]}
        />
      </Pair>
      <Choice
        label="After a restart of its host, a member that ran"
        value={form.back}
        onChange={(back) => change({ back })}
        error={errors.back}
        data={[
          { value: "start", label: "starts again" },
          { value: "stay", label: "stays off" },
        ]}
      />
    </Stack>
  );
}

/** Which nodes the members may go to. */
export function PlacementFields(props: FieldsProps) {
  const { form, change, errors } = props;
  const operator = useIsOperator();
  const nodes = useQuery({ ...nodesQuery(), enabled: operator });
  const zones = [...new Set((nodes.data?.items ?? []).flatMap(({ zone }) => zone ?? []))].sort();
  return (
    <Stack gap="sm">
      <Choice
        label="Over the nodes"
        value={form.policy}
        onChange={(policy) => change({ policy })}
        error={errors.policy}
        data={[
          { value: "spread", label: "Spread them" },
          { value: "pack", label: "Fill one after the other" },
        ]}
      />
      <Typed {...props} field="most" label="Most on one node" placeholder="no limit" numeric />
      <TagsInput
        label="Only in these zones"
        placeholder={form.zone.length === 0 ? "all zones" : undefined}
        data={zones}
        value={form.zone}
        onChange={(zone) => change({ zone })}
        error={errors.zone}
        data-field="zone"
      />
      {operator && (
        <MultiSelect
          label="Only on these nodes"
          placeholder={form.node.length === 0 ? "all nodes" : undefined}
          data={[...new Set([...(nodes.data?.items ?? []).map(({ name }) => name), ...form.node])].sort()}
          value={form.node}
          onChange={(node) => change({ node })}
          error={errors.node}
          searchable
          nothingFoundMessage="No node has this name"
          data-field="node"
        />
      )}
    </Stack>
  );
}

/** Labels, and how long the work may take. */
export function RestFields(props: FieldsProps) {
  const { form, change, errors } = props;
  return (
    <Stack gap="sm">
      <TagsInput
        label="Labels"
        description="Write key=value and press Enter. Members get them too."
        placeholder={form.label.length === 0 ? "tier=web" : undefined}
        value={form.label}
        onChange={(label) => change({ label })}
        error={errors.label}
        data-field="label"
      />
      <Typed
        {...props}
        field="deadline"
        label="Give up after seconds"
        placeholder="as the controller computes it"
        numeric
      />
    </Stack>
  );
}
