import { ActionIcon, ScrollArea, Tooltip } from "@mantine/core";
import { IconLayoutSidebarLeftCollapse, IconLayoutSidebarLeftExpand } from "@tabler/icons-react";
import { Link } from "@tanstack/react-router";
import classes from "./Nav.module.css";
import { pages } from "./pages.ts";

interface Props {
  operator: boolean;
  narrow: boolean;
  onNarrow: (narrow: boolean) => void;
}

export function Nav({ operator, narrow, onNarrow }: Props) {
  return (
    <>
      <ScrollArea flex={1} type="scroll">
        <nav aria-label="Pages">
          <ul className={classes.list}>
            {pages
              .filter((page) => operator || !page.operators)
              .map((page) => (
                <li key={page.to}>
                  <Tooltip label={page.title} position="right" disabled={!narrow}>
                    <Link
                      to={page.to}
                      className={classes.link}
                      data-narrow={narrow || undefined}
                      activeOptions={{ exact: page.to === "/", includeSearch: false }}
                      activeProps={{ "data-here": true }}
                      aria-label={narrow ? page.title : undefined}
                    >
                      <page.icon size={17} stroke={1.7} aria-hidden />
                      {!narrow && <span>{page.title}</span>}
                    </Link>
                  </Tooltip>
                </li>
              ))}
          </ul>
        </nav>
      </ScrollArea>
      <div className={classes.foot}>
        <Tooltip label={narrow ? "Widen the navigation" : "Narrow the navigation"} position="right">
          <ActionIcon
            variant="subtle"
            color="gray"
            visibleFrom="sm"
            onClick={() => onNarrow(!narrow)}
            aria-label={narrow ? "Widen the navigation" : "Narrow the navigation"}
          >
            {narrow ? <IconLayoutSidebarLeftExpand size={17} /> : <IconLayoutSidebarLeftCollapse size={17} />}
          </ActionIcon>
        </Tooltip>
      </div>
    </>
  );
}
