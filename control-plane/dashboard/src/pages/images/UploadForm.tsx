import { Button, Code, Collapse, Group, NativeSelect, Stack, Text, TextInput, UnstyledButton } from "@mantine/core";
import { IconChevronDown, IconChevronRight } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useBlocker } from "@tanstack/react-router";
import { useState } from "react";
import { ApiError } from "../../api/client.ts";
import { imageQuery } from "../../api/images.ts";
import { searchOf } from "../../api/scope.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { bytes, duration, percent } from "../../ui/format.ts";
import { ButtonLink } from "../../ui/links.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ProgressBar } from "../../ui/ProgressBar.tsx";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import { FileChoice } from "./FileChoice.tsx";
import { imageNameOf, nameTrouble } from "./names.ts";
import { type UploadState, useUpload } from "./useUpload.ts";

interface Props {
  name: string;
  /** The image that gets a new version; empty for a new image. */
  into: string;
  onName: (name: string) => void;
  onInto: (image: string) => void;
}

/** Uploads a file, as a new image or as a new version of one. */
export function UploadForm({ name, into, onName, onInto }: Props) {
  const target = useQuery({ ...imageQuery(into), enabled: into !== "" });
  const [file, setFile] = useState<File>();
  const [format, setFormat] = useState("");
  const [sha256, setSha256] = useState("");
  const [chunk, setChunk] = useState("");
  const [more, setMore] = useState(false);
  const [tried, setTried] = useState(false);
  const { state, start, cancel, again } = useUpload();
  const sending = state.step === "sending";
  const blocker = useBlocker({
    shouldBlockFn: ({ current, next }) => sending && current.pathname !== next.pathname,
    enableBeforeUnload: () => sending,
    withResolver: true,
  });
  const wrongName = into === "" ? nameTrouble(name) : undefined;
  const wrongDigest = sha256 !== "" && !/^[0-9a-f]{64}$/i.test(sha256) ? "64 hexadecimal digits." : undefined;

  if (state.step === "done") {
    const more = () => {
      again();
      setFile(undefined);
      setTried(false);
      onName("");
    };
    return <Done state={state} onMore={more} />;
  }

  const submit = () => {
    setTried(true);
    if (file === undefined || wrongName !== undefined || wrongDigest !== undefined) return;
    if (into !== "" && target.data === undefined) return;
    void start({
      into: target.data ?? null,
      name,
      file,
      format,
      sha256: sha256.toLowerCase(),
      ...(chunk === "" ? {} : { chunkBytes: Number(chunk) }),
    });
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <Panel>
        <Stack gap="md">
          {into !== "" && target.error !== null && (
            <ErrorBox error={target.error} title={`There is no image ${into}`} />
          )}
          <div>
            <FileChoice
              file={file}
              disabled={sending}
              onChange={(chosen) => {
                setFile(chosen);
                if (into === "" && name === "") onName(imageNameOf(chosen.name));
              }}
            />
            {tried && file === undefined && (
              <Text size="xs" c="var(--state-bad)" mt={4} role="alert">
                Choose a file first.
              </Text>
            )}
          </div>
          {into === "" && (
            <TextInput
              label="Name"
              value={name}
              onChange={(event) => onName(event.currentTarget.value)}
              error={(tried || name !== "") && wrongName}
              disabled={sending}
              autoComplete="off"
              spellCheck={false}
              maw={420}
            />
          )}
          <div>
            <UnstyledButton onClick={() => setMore(!more)} aria-expanded={more} fz="sm">
              <Group gap={4}>
                {more ? <IconChevronDown size={15} /> : <IconChevronRight size={15} />}
                Format, checksum{into === "" ? ", chunk size" : ""}
              </Group>
            </UnstyledButton>
            <Collapse expanded={more}>
              <Stack gap="sm" mt="sm" maw={560}>
                <NativeSelect
                  label="Format"
                  value={format}
                  onChange={(event) => setFormat(event.currentTarget.value)}
                  disabled={sending}
                  data={[
                    { value: "", label: "Found out from the file" },
                    { value: "raw", label: "raw" },
                    { value: "qcow2", label: "qcow2" },
                  ]}
                  maw={260}
                />
                <TextInput
                  label="SHA-256 of the file"
                  description="If you give it, a file that arrives otherwise becomes no version."
                  value={sha256}
                  onChange={(event) => setSha256(event.currentTarget.value.trim())}
                  error={wrongDigest}
                  disabled={sending}
                  autoComplete="off"
                  spellCheck={false}
                  ff="monospace"
                />
                {into === "" && (
                  <NativeSelect
                    label="Chunk size"
                    description="Smaller chunks store less after small writes; larger ones are fewer."
                    value={chunk}
                    onChange={(event) => setChunk(event.currentTarget.value)}
                    disabled={sending}
                    data={[
                      { value: "", label: "256 KiB, as usual" },
                      ...[65536, 131072, 524288, 1048576, 2097152, 4194304].map((size) => ({
                        value: String(size),
                        label: bytes(size),
                      })),
                    ]}
                    maw={260}
                  />
                )}
              </Stack>
            </Collapse>
          </div>
          {state.step === "failed" && (
            <Failed
              error={state.error}
              name={name}
              onVersion={() => {
                onInto(name);
                again();
              }}
            />
          )}
          {state.step === "sending" ? (
            <Sending state={state} onCancel={cancel} />
          ) : (
            <Group gap="md">
              <Button type="submit" size="sm">
                {state.step === "failed" ? "Upload again" : "Upload"}
              </Button>
              <Code px={8} py={3} maw="100%">
                <CopyId
                  value={`muster image import ${into || name || "NAME"} ${file?.name.replaceAll(" ", "\\ ") ?? "FILE"}`}
                  label="command"
                />
              </Code>
            </Group>
          )}
        </Stack>
      </Panel>
      <ConfirmDialog
        opened={blocker.status === "blocked"}
        onClose={() => blocker.reset?.()}
        title="Leave and give the upload up?"
        confirm="Leave"
        danger
        onConfirm={async () => {
          cancel();
          blocker.proceed?.();
        }}
      >
        <Text size="sm">
          The file is still being sent. If you leave now, it has to be sent again from its beginning.
        </Text>
      </ConfirmDialog>
    </form>
  );
}

function Sending({ state, onCancel }: { state: Extract<UploadState, { step: "sending" }>; onCancel: () => void }) {
  const { sent, total, perSecond, leftMs } = state;
  const allSent = total > 0 && sent >= total;
  const amount = `${bytes(sent)} of ${bytes(total)}`;
  return (
    <Stack gap={6}>
      <ProgressBar done={sent} total={total} label={amount} unknown={allSent || sent === 0} />
      <Group justify="space-between" gap="sm">
        <Text size="sm" aria-live={allSent ? "polite" : "off"}>
          {allSent
            ? "All bytes are sent. The controller checks and stores them; this page waits for it."
            : `${amount}, ${percent(sent, total)}${perSecond === null ? "" : `, ${bytes(perSecond)}/s`}${
                leftMs === null ? "" : `, ${duration(Math.max(1000, leftMs))} left`
              }`}
        </Text>
        <Button size="xs" variant="default" onClick={onCancel}>
          Cancel
        </Button>
      </Group>
      {!allSent && (
        <Text size="xs" c="dimmed">
          Keep this page open. An upload that breaks has to begin anew.
        </Text>
      )}
    </Stack>
  );
}

function Failed({ error, name, onVersion }: { error: unknown; name: string; onVersion: () => void }) {
  const taken = error instanceof ApiError && error.code === "name_taken";
  return (
    <Stack gap="xs" align="flex-start">
      <ErrorBox error={error} title={taken ? `There is an image ${name} already` : "The upload failed"} />
      {taken && (
        <Button size="xs" variant="default" onClick={onVersion}>
          Make it a new version of {name}
        </Button>
      )}
    </Stack>
  );
}

function Done({ state, onMore }: { state: Extract<UploadState, { step: "done" }>; onMore: () => void }) {
  const { version, isNew } = state;
  const search = searchOf(version.project);
  return (
    <Panel>
      <Stack gap="md">
        <Group gap="sm" wrap="nowrap">
          <ToneIcon tone="good" size={22} />
          <div>
            <Text fw={600} role="status">
              {isNew ? `${version.name} is ready` : `${version.name} has these bytes already`}
            </Text>
            <Text size="sm" c="dimmed">
              {isNew
                ? `A disk of ${bytes(version.size_bytes)}, of which ${bytes(version.stored_bytes)} had to be stored.`
                : "Nothing was changed, and no new version was made."}
            </Text>
          </div>
        </Group>
        <Group gap="sm">
          <ButtonLink
            size="xs"
            to="/deployments/new"
            search={{ ...search, image: version.image_name ?? "", number: String(version.number ?? "") } as never}
          >
            Deploy instances from it
          </ButtonLink>
          {version.image !== null && (
            <ButtonLink
              size="xs"
              variant="default"
              to="/images/$image"
              params={{ image: version.image }}
              search={search}
            >
              Show the image
            </ButtonLink>
          )}
          <Button size="xs" variant="subtle" onClick={onMore}>
            Upload another file
          </Button>
        </Group>
      </Stack>
    </Panel>
  );
}
