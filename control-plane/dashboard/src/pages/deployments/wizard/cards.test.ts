import { expect, test } from "vitest";
import type { Deployment } from "../../../api/deployments.ts";
import { cardFieldOf, cardOf, cardsLike, cardText, nicsOf, publishedOf, usualCard } from "./cards.ts";

test("a card is the same after it was in the URL, whatever was typed", () => {
  for (const card of [
    usualCard,
    { network: "back", address: "10.20.0.5", groups: ["default", "web"], ports: ["22", "53/udp", "30022:22"] },
    { network: "", address: "", groups: [], ports: [] },
    { network: "a", address: "1;2,3%", groups: [], ports: [",;"] },
  ]) {
    expect(cardOf(cardText(card))).toEqual(card);
  }
  expect(cardText(usualCard)).toBe("default;;default");
  expect(cardOf("back").network).toBe("back");
});

test("ports are read as the command line has them", () => {
  expect(publishedOf("22")).toEqual({ port: 22 });
  expect(publishedOf(" 53/udp ")).toEqual({ port: 53, protocol: "udp" });
  expect(publishedOf("30022:22/tcp")).toEqual({ port: 22, node_port: 30022 });
  for (const wrong of ["", "ssh", "22/sctp", "1:2:3", "22-30"]) expect(publishedOf(wrong)).toBeNull();
});

test("what is usual is not said, and what cannot be read is told at its card", () => {
  expect(nicsOf([usualCard])).toEqual({ nics: [{ network: "default" }], unread: {} });
  const card = { network: "back", address: " 10.20.0.5 ", groups: ["web"], ports: ["80", "http"] };
  const { nics, unread } = nicsOf([usualCard, card]);
  expect(nics[1]).toEqual({
    network: "back",
    address: "10.20.0.5",
    security_groups: ["web"],
    ports: [{ port: 80 }],
  });
  expect(Object.keys(unread)).toEqual(["card/1/ports"]);
});

test("an error of the API stands at its card and field, or at the choice where there are no fields", () => {
  expect(cardFieldOf("/nics/1/ports/0/node_port", true)).toBe("card/1/ports");
  expect(cardFieldOf("/nics/0/security_groups/2", true)).toBe("card/0/groups");
  expect(cardFieldOf("/nics/0/network", true)).toBe("card/0/network");
  expect(cardFieldOf("/nics/0/network", false)).toBe("cards");
  expect(cardFieldOf("/nics", true)).toBe("cards");
  expect(cardFieldOf("/cpus", true)).toBeUndefined();
});

test("another deployment like this one gets the same cards, without what only one can have", () => {
  const nic = { network_name: "back", security_group_names: ["web"], address: "10.20.0.5" };
  const ports = [
    { port: 22, node_port: 30022, protocol: "tcp" },
    { port: 53, protocol: "udp" },
  ];
  const like = (nics: unknown[], runtime = "libvirt") => cardsLike({ nics, runtime } as unknown as Deployment);
  expect(like([{ ...nic, ports }])).toEqual({ cards: "chosen", card: ["back;;web;22,53/udp"] });
  expect(like([])).toEqual({ cards: "none" });
  expect(like([{ network_name: "default", security_group_names: ["default"], ports: [] }])).toEqual({});
  expect(like([], "none")).toEqual({});
});
