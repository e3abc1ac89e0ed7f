import { CopyButton, UnstyledButton } from "@mantine/core";
import { IconCheck, IconCopy } from "@tabler/icons-react";
import type { ReactNode } from "react";
import classes from "./CopyId.module.css";

interface Props {
  value: string;
  /** Shows only the end of an id, which is what differs. */
  short?: boolean;
  /** Shows the button alone. */
  bare?: boolean;
  /** What it is, for the hint. */
  label?: string;
  /** What is shown instead of the text itself. */
  children?: ReactNode;
}

/** A text to copy with one click, such as an id. */
export function CopyId({ value, short = false, bare = false, label = "id", children }: Props) {
  const shown = short && value.length > 12 ? `…${value.slice(-8)}` : value;
  return (
    <CopyButton value={value} timeout={1500}>
      {({ copied, copy }) => (
        <UnstyledButton
          title={copied ? "Copied" : short ? value : `Copy the ${label}`}
          className={classes.button}
          onClick={copy}
        >
          <span className="visually-hidden">Copy the {label} </span>
          {!bare && <span className={classes.text}>{children ?? shown}</span>}
          {copied ? <IconCheck size={13} className={classes.done} /> : <IconCopy size={13} className={classes.icon} />}
        </UnstyledButton>
      )}
    </CopyButton>
  );
}
