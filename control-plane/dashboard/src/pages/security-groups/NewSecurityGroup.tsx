import { Input, TextInput } from "@mantine/core";
import { useState } from "react";
import { thingScope } from "../../api/scope.ts";
import { type SecurityGroup, useCreateSecurityGroup } from "../../api/security-groups.ts";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { refusalOf } from "../../ui/field-errors.ts";
import { ProjectSelect } from "../../ui/ProjectSelect.tsx";
import { toastDone } from "../../ui/toast.tsx";
import { useSubmit } from "../../ui/use-submit.ts";
import { RulesEditor } from "./RulesEditor.tsx";
import { itself, problemsOf, type RuleRow, requestOf, rowFieldOf } from "./rule-rows.ts";
import { ruleText } from "./rules.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  onMade: (group: SecurityGroup) => void;
}

/** Asks for the name and the rules of a security group, and makes it. */
export function NewSecurityGroup(props: Props) {
  return (
    <Dialog opened={props.opened} onClose={props.onClose} title="New security group" size="xl">
      <Form {...props} />
    </Dialog>
  );
}

const fieldOf = (pointer: string) => (pointer === "/name" ? "name" : rowFieldOf(pointer));

function Form({ onClose, onMade }: Props) {
  const [name, setName] = useState("");
  const [rows, setRows] = useState<RuleRow[]>([]);
  const [project, setProject] = useState(thingScope());
  const create = useCreateSecurityGroup();
  const problems = problemsOf(rows);
  const needsName = name.trim() === "" && rows.some(({ side, group }) => side === "group" && group === itself);
  if (needsName) problems.name = "Its rules name the group itself, so it needs a name.";
  const request = { ...(name.trim() === "" ? {} : { name: name.trim() }), rules: requestOf(rows, name.trim()) };
  const { busy, error, onSubmit } = useSubmit(Object.keys(problems).length === 0, async () => {
    const group = await create.mutateAsync({ project, request });
    toastDone(`Security group ${group.name} is made`);
    onClose();
    onMade(group);
  });
  const { fields, beside } = refusalOf(error, fieldOf);
  const errors = { ...fields, ...problems };
  return (
    <DialogForm
      label="New security group"
      onSubmit={onSubmit}
      onClose={onClose}
      submit="Make the group"
      busy={busy}
      error={beside}
      failed="It is not made"
      command={commandFor(request, project)}
    >
      <ProjectSelect description="Whose cards can have it." value={project} onChange={setProject} />
      <TextInput
        label="Name"
        placeholder="made up if empty"
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
        error={errors.name}
        autoComplete="off"
        spellCheck={false}
        data-autofocus
      />
      <Input.Wrapper
        label="What it lets through"
        labelElement="div"
        description="A card with several groups lets through what one of them does."
      >
        <div style={{ marginTop: 8 }}>
          <RulesEditor rows={rows} onChange={setRows} errors={errors} project={project} />
        </div>
      </Input.Wrapper>
    </DialogForm>
  );
}

function commandFor(request: { name?: string; rules: ReturnType<typeof requestOf> }, project: string | undefined) {
  const words = ["muster"];
  if (project !== undefined && project !== "default") words.push("--project", project);
  words.push("security-group create", request.name ?? "NAME");
  for (const rule of request.rules) {
    const side = rule.from ?? rule.to;
    const isGroup = side !== undefined && side !== null && !/[./:]/.test(side);
    words.push("--allow", ruleText(isGroup ? { ...rule, group_name: side } : rule));
  }
  return words.join(" ");
}
