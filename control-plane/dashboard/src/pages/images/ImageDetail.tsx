import { ActionIcon, Alert, Menu, Text, TextInput } from "@mantine/core";
import {
  IconDeviceDesktop,
  IconDots,
  IconDownload,
  IconEdit,
  IconGridDots,
  IconTrash,
  IconUpload,
} from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useNavigate, useParams } from "@tanstack/react-router";
import { useState } from "react";
import { type Image, useChangeImage, useImage, useImageFreed } from "../../api/images.ts";
import { searchOf } from "../../api/scope.ts";
import { contentUrl, imageVersionsQuery, projectVersionsQuery } from "../../api/versions.ts";
import { useCommands } from "../../commands/registry.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
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
import { LabelsPanel } from "../instances/LabelsPanel.tsx";
import { DeleteImages } from "./DeleteImages.tsx";
import { nameTrouble } from "./names.ts";
import { SystemForm } from "./SystemForm.tsx";
import { VersionTree } from "./VersionTree.tsx";
import { bootWords, firmwareText } from "./words.ts";

/** One image: its versions, what was made from them, and what one can do with it. */
export default function ImageDetail() {
  const { image: id } = useParams({ from: "/framed/images/$image" });
  const { data: image, error, refetch } = useImage(id);
  const crumbs = [
    <TextLink key="list" to="/images">
      Images
    </TextLink>,
  ];
  if (image === undefined) {
    return <WaitingPage title="Image" error={error} onRetry={() => void refetch()} crumbs={crumbs} />;
  }
  return <Shown image={image} crumbs={crumbs} error={error} />;
}

function Shown({ image, crumbs, error }: { image: Image; crumbs: React.ReactNode[]; error: unknown }) {
  const navigate = useNavigate();
  const [asking, setAsking] = useState<"rename" | "system" | "delete">();
  const change = useChangeImage();
  const versions = useQuery(imageVersionsQuery(image.id));
  const all = useQuery(projectVersionsQuery());
  const freed = useImageFreed(image, image.version_count > 0);
  const roots = versions.data?.items ?? [];
  const stored = roots.reduce((sum, version) => sum + version.stored_bytes, 0);
  const search = searchOf(image.project);
  const newest = image.newest_version;
  const isEmpty = newest === null;
  const isDeleted = image.state === "deleted";
  const uploadSearch = { ...search, into: image.name } as never;
  const deploySearch = { ...search, image: image.name } as never;
  useCommands(
    () => [
      {
        id: "deploy",
        title: `Deploy ${image.name}`,
        run: () => void navigate({ to: "/deployments/new", search: deploySearch }),
      },
      {
        id: "upload",
        title: `Upload a version of ${image.name}`,
        run: () => void navigate({ to: "/images/new", search: uploadSearch }),
      },
      { id: "rename", title: `Rename image ${image.name}`, run: () => setAsking("rename") },
      { id: "system", title: `Say what is known of the system on ${image.name}`, run: () => setAsking("system") },
      { id: "delete", title: `Delete image ${image.name}`, run: () => setAsking("delete") },
    ],
    [image.name],
  );
  return (
    <Page
      title={image.name}
      badge={<StateBadge state={image.state} reason={image.reason} />}
      crumbs={crumbs}
      actions={
        !isDeleted && (
          <>
            {!isEmpty && (
              <ButtonLink size="xs" to="/deployments/new" search={deploySearch}>
                Deploy
              </ButtonLink>
            )}
            <ButtonLink
              size="xs"
              variant={isEmpty ? "filled" : "default"}
              to="/images/new"
              search={uploadSearch}
              leftSection={<IconUpload size={15} />}
            >
              {isEmpty ? "Upload content" : "New version"}
            </ButtonLink>
            <Menu position="bottom-end" shadow="md">
              <Menu.Target>
                <ActionIcon variant="default" size={30} aria-label="More actions">
                  <IconDots size={16} />
                </ActionIcon>
              </Menu.Target>
              <Menu.Dropdown>
                {!isEmpty && (
                  <>
                    <Menu.Item
                      leftSection={<IconGridDots size={15} />}
                      onClick={() =>
                        void navigate({ to: "/images/$image/chunks", params: { image: image.id }, search })
                      }
                    >
                      Chunk map
                    </Menu.Item>
                    <Menu.Item
                      leftSection={<IconDownload size={15} />}
                      component="a"
                      href={contentUrl({ id: newest, project: image.project })}
                      download={`${image.name}@${image.newest_number}.raw`}
                    >
                      Download, raw, {bytes(image.size_bytes)}
                    </Menu.Item>
                  </>
                )}
                <Menu.Item leftSection={<IconEdit size={15} />} onClick={() => setAsking("rename")}>
                  Rename
                </Menu.Item>
                <Menu.Item leftSection={<IconDeviceDesktop size={15} />} onClick={() => setAsking("system")}>
                  System and needs
                </Menu.Item>
                <Menu.Divider />
                <Menu.Item color="red" leftSection={<IconTrash size={15} />} onClick={() => setAsking("delete")}>
                  Delete
                </Menu.Item>
              </Menu.Dropdown>
            </Menu>
          </>
        )
      }
    >
      {error ? <ErrorBox error={error} title="What you see may be out of date" /> : null}
      {isDeleted && (
        <Alert color="gray" title="This image is deleted">
          It is shown for a day. What was deployed from it goes on.
        </Alert>
      )}
      {isEmpty && !isDeleted ? (
        <Panel>
          <EmptyState
            title="The image has no content yet"
            action={
              <ButtonLink to="/images/new" search={uploadSearch}>
                Upload content
              </ButtonLink>
            }
            cli={`muster image import ${image.name} FILE`}
          >
            Upload a raw or qcow2 file. It becomes version 1, and instances can be deployed from it.
          </EmptyState>
        </Panel>
      ) : (
        <>
          <Panel title="Facts">
            <KeyValues
              items={[
                ["Size of the disk", <ByteSize key="size" value={image.size_bytes} />],
                ["Versions", count(image.version_count)],
                [
                  "Newest version",
                  newest === null ? undefined : (
                    <ThingLink
                      key="newest"
                      kind="version"
                      id={newest}
                      name={`${image.name}@${image.newest_number}`}
                      project={image.project}
                    />
                  ),
                ],
                ["Newly stored by its versions", <ByteSize key="stored" value={stored} />],
                [
                  "Used by nothing else",
                  freed.isPending && freed.fetchStatus !== "idle" ? (
                    "finding out …"
                  ) : freed.data?.bytes === null || freed.data === undefined ? (
                    "not known"
                  ) : (
                    <ByteSize key="freed" value={freed.data.bytes} />
                  ),
                ],
                ["Chunk size", bytes(image.chunk_bytes)],
                ["Boots with", bootWords(image.boot)],
                ["Firmware of its machines", firmwareText(image.firmware)],
                ["Operating system", image.os ?? undefined],
                ["User for signing in", image.default_user ?? undefined],
                ["Least disk", image.min_disk_bytes === null ? undefined : bytes(image.min_disk_bytes)],
                ["Least memory", image.min_memory_bytes === null ? undefined : bytes(image.min_memory_bytes)],
                ["Made", <TimeAgo key="made" time={image.created_at} />],
                ["Changed", <TimeAgo key="changed" time={image.updated_at} />],
                ["Project", image.project],
                ["Id", <CopyId key="id" value={image.id} />],
              ]}
            />
          </Panel>
          <Panel
            title="Versions"
            flush
            aside={
              newest !== null && (
                <TextLink to="/images/$image/chunks" params={{ image: image.id }} search={search} fz="xs">
                  Chunk map
                </TextLink>
              )
            }
          >
            {versions.error && versions.data === undefined ? (
              <ErrorBox
                error={versions.error}
                title="The versions cannot be read"
                onRetry={() => void versions.refetch()}
              />
            ) : (
              <VersionTree
                roots={roots}
                all={all.data?.items ?? []}
                complete={(versions.data?.complete ?? false) && (all.data?.complete ?? all.isError)}
                {...(newest === null ? {} : { current: newest })}
              />
            )}
          </Panel>
        </>
      )}
      {!isDeleted && (
        <LabelsPanel
          labels={image.labels}
          onSave={(labels) => change.mutateAsync({ image, change: { labels } as never })}
        />
      )}
      <DeleteImages
        things={[image]}
        opened={asking === "delete"}
        onClose={() => setAsking(undefined)}
        onDone={() => void navigate({ to: "/images" })}
      />
      {asking === "system" && <SystemForm image={image} onClose={() => setAsking(undefined)} />}
      {asking === "rename" && <Rename image={image} onClose={() => setAsking(undefined)} />}
    </Page>
  );
}

function Rename({ image, onClose }: { image: Image; onClose: () => void }) {
  const [name, setName] = useState(image.name);
  const rename = useChangeImage();
  const trouble = nameTrouble(name);
  return (
    <ConfirmDialog
      opened
      onClose={onClose}
      title={`Rename image ${image.name}`}
      confirm="Rename"
      onConfirm={async () => {
        if (trouble !== undefined) throw new Error(trouble);
        await rename.mutateAsync({ image, change: { name } });
        toastDone(`The image is called ${name} now`);
      }}
    >
      <TextInput
        label="New name"
        value={name}
        error={trouble}
        onChange={(event) => setName(event.currentTarget.value)}
        data-autofocus
        autoComplete="off"
      />
      <Text size="xs" c="dimmed" mt={6}>
        What names the image by its id is not affected. Scripts that name it have to follow.
      </Text>
    </ConfirmDialog>
  );
}
