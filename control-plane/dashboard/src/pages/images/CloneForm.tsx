import { Button, Code, Group, Stack, Text, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { useCreateImage } from "../../api/images.ts";
import { searchOf } from "../../api/scope.ts";
import { projectVersionsQuery, useVersion, type Version } from "../../api/versions.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { bytes } from "../../ui/format.ts";
import { Panel } from "../../ui/Panel.tsx";
import { SearchSelect } from "../../ui/SearchSelect.tsx";
import { toastDone } from "../../ui/toast.tsx";
import { nameTrouble } from "./names.ts";

interface Props {
  name: string;
  /** Id of the version that is chosen; empty while none is. */
  version: string;
  onName: (name: string) => void;
  onVersion: (version: string) => void;
}

/** More versions than this are found by typing. */
const offered = 200;

/** Makes an image from a version of an image or of a disk. Nothing is copied. */
export function CloneForm({ name, version, onName, onVersion }: Props) {
  const navigate = useNavigate();
  const versions = useQuery(projectVersionsQuery());
  const chosen = useVersion(version);
  const create = useCreateImage();
  const [tried, setTried] = useState(false);
  const options = useMemo(() => {
    const list: Version[] = [...(versions.data?.items ?? [])].reverse();
    if (chosen.data !== undefined && !list.some(({ id }) => id === chosen.data.id)) list.unshift(chosen.data);
    return list.map(({ id, name: title, size_bytes }) => ({ value: id, label: `${title}, ${bytes(size_bytes)}` }));
  }, [versions.data, chosen.data]);
  const wrongName = nameTrouble(name);
  const submit = async () => {
    setTried(true);
    if (version === "" || wrongName !== undefined) return;
    const image = await create.mutateAsync({ name, version }).catch(() => undefined);
    if (image === undefined) return;
    toastDone(`Image ${image.name} is made`);
    void navigate({ to: "/images/$image", params: { image: image.id }, search: searchOf(image.project) });
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <Panel>
        <Stack gap="md">
          <SearchSelect
            label="Version"
            description="Of an image, or of the disk of an instance as a snapshot has it."
            placeholder="Type to find one"
            data={options}
            value={version === "" ? null : version}
            onChange={(value) => onVersion(value ?? "")}
            limit={offered}
            nothingFoundMessage="No version has this name"
            error={tried && version === "" && "Choose a version first."}
            maw={420}
          />
          {versions.error !== null && <ErrorBox error={versions.error} title="The versions cannot be read" />}
          <TextInput
            label="Name of the new image"
            value={name}
            onChange={(event) => onName(event.currentTarget.value)}
            error={(tried || name !== "") && wrongName}
            autoComplete="off"
            spellCheck={false}
            maw={420}
          />
          <Text size="sm" c="dimmed">
            The new image shares all bytes with the version, so it is made at once and takes no space.
          </Text>
          {create.error !== null && <ErrorBox error={create.error} title="The image could not be made" />}
          <Group gap="md">
            <Button type="submit" size="sm" loading={create.isPending}>
              Make the image
            </Button>
            <Code px={8} py={3} maw="100%">
              <CopyId
                value={`muster image clone ${chosen.data === undefined ? "VERSION" : chosen.data.image === null ? version : chosen.data.name} ${name || "NAME"}`}
                label="command"
              />
            </Code>
          </Group>
        </Stack>
      </Panel>
    </form>
  );
}
