import { ScrollArea } from "@mantine/core";
import { CopyId } from "./CopyId.tsx";
import classes from "./JsonView.module.css";

/** A value as the API gives it, to read and to copy. */
export function JsonView({ value, label = "JSON" }: { value: unknown; label?: string }) {
  const text = JSON.stringify(value, null, 2);
  return (
    <div className={classes.box}>
      <div className={classes.copy}>
        <CopyId value={text} bare label={label} />
      </div>
      <ScrollArea.Autosize mah={420} type="auto">
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: so that it can be scrolled by keyboard */}
        <pre className={classes.text} tabIndex={0}>
          {text}
        </pre>
      </ScrollArea.Autosize>
    </div>
  );
}
