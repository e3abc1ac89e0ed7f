import type { ReactNode } from "react";
import classes from "./KeyValues.module.css";

/** The facts about a thing, as pairs of name and value. Pairs whose value is undefined are left out. */
export function KeyValues({ items }: { items: readonly (readonly [string, ReactNode])[] }) {
  return (
    <dl className={classes.list}>
      {items
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => (
          <div key={name} className={classes.pair}>
            <dt>{name}</dt>
            <dd>{value === null || value === "" ? "–" : value}</dd>
          </div>
        ))}
    </dl>
  );
}
