import { ActionIcon, Alert, Button, Menu, Text } from "@mantine/core";
import { IconCopy, IconDots, IconDownload, IconTrash } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useNavigate, useParams } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";
import { searchOf } from "../../api/scope.ts";
import {
  contentUrl,
  projectVersionsQuery,
  useDeleteVersion,
  useVersion,
  useVersionFreed,
  type Version,
} from "../../api/versions.ts";
import { useCommands } from "../../commands/registry.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { bytes, count } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { ButtonLink, TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { toastDone } from "../../ui/toast.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { ChunkPanel } from "../images/ChunkPanel.tsx";
import { VersionTree } from "../images/VersionTree.tsx";
import { bootWords, labelWords } from "../images/words.ts";

/** One state of a disk: where it comes from, what it holds, what one can make of it. */
export default function VersionDetail() {
  const { version: id } = useParams({ from: "/framed/versions/$version" });
  const { data: version, error, refetch } = useVersion(id);
  if (version === undefined) {
    return <WaitingPage title="Version" error={error} onRetry={() => void refetch()} />;
  }
  return <Shown key={version.id} version={version} error={error} />;
}

function Shown({ version, error }: { version: Version; error: unknown }) {
  const navigate = useNavigate();
  const [asking, setAsking] = useState(false);
  const remove = useDeleteVersion();
  const search = searchOf(version.project);
  const isDeleted = version.state === "deleted";
  const freed = useVersionFreed(version, !isDeleted);
  const all = useQuery(projectVersionsQuery());
  const items = all.data?.items ?? [];
  const parent = items.find(({ id }) => id === version.parent);
  const hasChildren = items.some(({ parent: other }) => other === version.id);
  const { image, image_name, instance, instance_name, snapshot, snapshot_name, project } = version;
  const deploySearch = { ...search, version: version.id } as never;
  const cloneSearch = { ...search, from: "version", version: version.id } as never;
  useCommands(
    () => [
      {
        id: "deploy",
        title: `Deploy from ${version.name}`,
        run: () => void navigate({ to: "/deployments/new", search: deploySearch }),
      },
      {
        id: "clone",
        title: `Make an image from ${version.name}`,
        run: () => void navigate({ to: "/images/new", search: cloneSearch }),
      },
      { id: "delete", title: `Delete version ${version.name}`, run: () => setAsking(true) },
    ],
    [version.id],
  );
  const crumbs: ReactNode[] =
    image !== null
      ? [
          <TextLink key="images" to="/images">
            Images
          </TextLink>,
          <ThingLink key="image" kind="image" id={image} name={image_name} project={project} />,
        ]
      : snapshot !== null
        ? [
            <TextLink key="snapshots" to="/snapshots">
              Snapshots
            </TextLink>,
            <ThingLink key="snapshot" kind="snapshot" id={snapshot} name={snapshot_name} project={project} />,
          ]
        : [];
  const freedWords =
    freed.data === undefined ? (freed.isError ? "not known" : "finding out …") : (freed.data.bytes ?? undefined);
  return (
    <Page
      title={version.name}
      badge={<StateBadge state={version.state} reason={version.reason} />}
      subtitle={
        image !== null
          ? "A version of an image"
          : snapshot !== null
            ? "The disk of an instance, as a snapshot has it"
            : "A saved state of the disk of an instance"
      }
      crumbs={crumbs}
      actions={
        !isDeleted && (
          <>
            <ButtonLink size="xs" to="/deployments/new" search={deploySearch}>
              Deploy from here
            </ButtonLink>
            <Button
              size="xs"
              variant="default"
              component="a"
              href={contentUrl(version)}
              download={`${version.name.replaceAll("/", "-")}.raw`}
              leftSection={<IconDownload size={15} />}
            >
              Download
            </Button>
            <Menu position="bottom-end" shadow="md">
              <Menu.Target>
                <ActionIcon variant="default" size={30} aria-label="More actions">
                  <IconDots size={16} />
                </ActionIcon>
              </Menu.Target>
              <Menu.Dropdown>
                <Menu.Item
                  leftSection={<IconCopy size={15} />}
                  onClick={() => void navigate({ to: "/images/new", search: cloneSearch })}
                >
                  Make an image from it
                </Menu.Item>
                <Menu.Divider />
                <Menu.Item color="red" leftSection={<IconTrash size={15} />} onClick={() => setAsking(true)}>
                  Delete
                </Menu.Item>
              </Menu.Dropdown>
            </Menu>
          </>
        )
      }
    >
      {error ? <ErrorBox error={error} title="What you see may be out of date" /> : null}
      {(version.objects_lost ?? 0) > 0 && (
        <Alert color="red" title="Parts of it are lost">
          No node has a copy of {count(version.objects_lost)} of its objects. What needs them cannot be read. Import the
          same content again: it is found by its name.
        </Alert>
      )}
      {isDeleted && (
        <Alert color="gray" title="This version is deleted">
          It is shown for a day. What was made from it goes on.
        </Alert>
      )}
      <Panel title="Facts">
        <KeyValues
          items={[
            [
              "Image",
              image === null ? undefined : (
                <ThingLink key="image" kind="image" id={image} name={image_name} project={project} />
              ),
            ],
            [
              "Snapshot",
              snapshot === null ? undefined : (
                <ThingLink key="snapshot" kind="snapshot" id={snapshot} name={snapshot_name} project={project} />
              ),
            ],
            [
              "Instance",
              instance === null ? undefined : (
                <ThingLink key="instance" kind="instance" id={instance} name={instance_name} project={project} />
              ),
            ],
            [
              "Made from",
              version.parent ? (
                <ThingLink
                  key="parent"
                  kind="version"
                  id={version.parent}
                  name={parent?.name ?? "a version that is deleted"}
                  project={project}
                />
              ) : undefined,
            ],
            ["Size of the disk", <ByteSize key="size" value={version.size_bytes} />],
            ["Newly stored for it", <ByteSize key="stored" value={version.stored_bytes} />],
            [
              "Used by nothing else",
              typeof freedWords === "number" ? (
                <ByteSize key="freed" value={freedWords} />
              ) : (
                (freedWords ?? "not known")
              ),
            ],
            ["Boots with", bootWords(version.boot)],
            ["Chunk size", bytes(version.chunk_bytes)],
            ["Made", <TimeAgo key="made" time={version.created_at} />],
            ["Labels", labelWords(version.labels) || undefined],
            ["Project", project],
            ["Id", <CopyId key="id" value={version.id} />],
            [
              "BLAKE3 of its bytes",
              version.digest === null ? undefined : <CopyId key="digest" value={version.digest} label="digest" />,
            ],
          ]}
        />
      </Panel>
      {hasChildren && (
        <Panel title="What was made from it" flush>
          <VersionTree
            roots={[version]}
            all={items}
            complete={all.data?.complete ?? all.isError}
            current={version.id}
          />
        </Panel>
      )}
      {!isDeleted && <ChunkPanel version={version} />}
      <ConfirmDialog
        opened={asking}
        onClose={() => setAsking(false)}
        title={`Delete version ${version.name}?`}
        confirm="Delete"
        danger
        onConfirm={async () => {
          await remove.mutateAsync(version);
          toastDone(`Version ${version.name} is deleted`);
          if (image !== null) void navigate({ to: "/images/$image", params: { image }, search });
          else if (snapshot !== null) void navigate({ to: "/snapshots/$snapshot", params: { snapshot }, search });
          else void navigate({ to: "/images" });
        }}
      >
        <Text size="sm">
          Instances, snapshots and images that were made from it keep all their bytes.{" "}
          {snapshot !== null && "Its snapshot stays with one disk less; a fork of it has to allow that. "}
          {typeof freedWords === "number"
            ? `${bytes(freedWords)} are used by nothing else and can be freed.`
            : "How much is freed is not known."}
        </Text>
      </ConfirmDialog>
    </Page>
  );
}
