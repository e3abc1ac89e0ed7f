import { Button, Group, List, Modal, Stack, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { ApiError } from "../../api/client.ts";
import { type PatchSecurityGroup, type SecurityGroup, usePatchSecurityGroup } from "../../api/security-groups.ts";
import { ChangedMeanwhile } from "../../ui/ChangedMeanwhile.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { refusalOf } from "../../ui/field-errors.ts";
import { useBase } from "../../ui/use-base.ts";
import { useSubmit } from "../../ui/use-submit.ts";
import { RulesEditor } from "./RulesEditor.tsx";
import { problemsOf, requestOf, rowFieldOf, rowsOf } from "./rule-rows.ts";
import { whatOf, whoOf } from "./rules.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  /** The group as it is now. */
  group: SecurityGroup;
}

/** Changes the name and the rules of a security group. */
export function ChangeRules(props: Props) {
  return (
    <Modal
      opened={props.opened}
      onClose={props.onClose}
      title={`Change security group ${props.group.name}`}
      size="xl"
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {props.opened && <Form {...props} />}
    </Modal>
  );
}

const fieldOf = (pointer: string) => (pointer === "/name" ? "name" : rowFieldOf(pointer));

function Form({ onClose, group }: Props) {
  const { base, isOld, renew } = useBase(group);
  const [name, setName] = useState(group.name);
  const [rows, setRows] = useState(() => rowsOf(group));
  const client = useQueryClient();
  const change = usePatchSecurityGroup();
  const problems = problemsOf(rows);
  const ready = name.trim() !== "" && Object.keys(problems).length === 0 && !isOld;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    const rules = requestOf(rows, group.id);
    const patch: PatchSecurityGroup = {
      ...(name.trim() === base.name ? {} : { name: name.trim() }),
      ...(JSON.stringify(rules) === JSON.stringify(requestOf(rowsOf(base), group.id)) ? {} : { rules }),
    };
    try {
      if (Object.keys(patch).length > 0) await change.mutateAsync({ group, patch, ifMatch: base.etag });
    } catch (caught) {
      // The page has not heard of the other change yet.
      if (caught instanceof ApiError && caught.status === 412) {
        await client.invalidateQueries({ queryKey: ["security-groups"] });
      }
      throw caught;
    }
    onClose();
  });
  const { fields, beside } = refusalOf(error, fieldOf);
  const stale = beside instanceof ApiError && beside.status === 412;
  const errors = { ...fields, ...problems };
  return (
    <form onSubmit={onSubmit} noValidate aria-label="Change security group">
      <Stack gap="md">
        <TextInput
          label="Name"
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          error={errors.name}
          autoComplete="off"
          spellCheck={false}
          data-autofocus
        />
        <RulesEditor rows={rows} onChange={setRows} errors={errors} project={group.project} self={group.id} />
        {isOld && (
          <ChangedMeanwhile
            onTakeTheirs={() => {
              setName(group.name);
              setRows(rowsOf(group));
              renew();
            }}
            onKeepMine={renew}
          >
            Now it is called {group.name} and has {group.rules.length === 0 ? "no rules." : "these rules:"}
            <List size="sm">
              {group.rules.map((rule, n) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: rules have no ids, and two may be the same
                <List.Item key={n}>
                  {rule.direction}: {whatOf(rule)} {whoOf(rule)}
                </List.Item>
              ))}
            </List>
          </ChangedMeanwhile>
        )}
        {beside !== undefined && !stale && <ErrorBox error={beside} title="It is not changed" />}
        <Group justify="flex-end" gap="sm">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button type="submit" loading={busy} disabled={!ready}>
            Save
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
