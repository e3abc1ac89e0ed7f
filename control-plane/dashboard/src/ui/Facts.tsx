import { Fragment, type ReactNode } from "react";
import classes from "./Facts.module.css";

/** Some figures in a row, each after its name. Those whose value is undefined are left out. */
export function Facts({ items }: { items: readonly (readonly [string, ReactNode])[] }) {
  return (
    <div className={classes.facts}>
      {items.map(([name, value]) => (
        <Fragment key={name}>
          {value !== undefined && (
            <span>
              {name} <b>{value}</b>
            </span>
          )}
        </Fragment>
      ))}
    </div>
  );
}
