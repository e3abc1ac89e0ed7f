import { Button, FileButton, Group, Text } from "@mantine/core";
import { IconFile, IconUpload } from "@tabler/icons-react";
import { useState } from "react";
import { bytes } from "../../ui/format.ts";
import classes from "./FileChoice.module.css";

interface Props {
  file: File | undefined;
  onChange: (file: File) => void;
  disabled: boolean;
}

/** A file to upload: chosen by a button, or dropped. */
export function FileChoice({ file, onChange, disabled }: Props) {
  const [over, setOver] = useState(false);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the button inside does the same by keyboard
    <div
      className={classes.drop}
      data-over={over || undefined}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(!disabled);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        const dropped = event.dataTransfer.files[0];
        if (dropped !== undefined && !disabled) onChange(dropped);
      }}
    >
      {file === undefined ? (
        <IconUpload size={22} aria-hidden className={classes.icon} />
      ) : (
        <IconFile size={22} aria-hidden className={classes.icon} />
      )}
      <div className={classes.words}>
        <Text size="sm" fw={file === undefined ? 400 : 600} truncate>
          {file === undefined ? "Drop a raw or qcow2 file here" : file.name}
        </Text>
        <Text size="xs" c="dimmed">
          {file === undefined ? "qcow2 without a backing file; at most 16 TiB as a disk" : bytes(file.size)}
        </Text>
      </div>
      <Group>
        <FileButton onChange={(chosen) => chosen !== null && onChange(chosen)} disabled={disabled}>
          {(props) => (
            <Button size="xs" variant="default" disabled={disabled} {...props}>
              {file === undefined ? "Choose a file" : "Another file"}
            </Button>
          )}
        </FileButton>
      </Group>
    </div>
  );
}
