"use strict";

/* A surface in a figure: it can be turned and zoomed, its heights exaggerated, and a camera flown over it.

   Axes are glTF's: x to the east, y up, z to the south. Nothing is drawn while nothing changes. */
class ReliefView {
  static #SECONDS_A_FLIGHT = 40;
  static #MOST = 10; // exaggeration at the end of the slider; the same below 1 at its beginning

  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.needle = figure.querySelector(".compass g");
    this.fly = figure.querySelector(".fly");
    this.slider = figure.querySelector(".exaggeration");
    this.path = JSON.parse(figure.querySelector(".path").textContent);
    this.waiting = false;
    this.flying = false;
    this.time = 0;
    try {
      this.renderer = new THREE.WebGLRenderer({ canvas: this.canvas, antialias: true, alpha: true });
    } catch {
      this.#fail("This browser has no WebGL, which draws surfaces. The GLB file opens in other programs.");
      return;
    }
    this.renderer.outputEncoding = THREE.sRGBEncoding;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.camera = new THREE.PerspectiveCamera(45, 1, 1, 1000);
    this.scene = new THREE.Scene();
    this.scene.add(new THREE.AmbientLight(0xffffff, 0.65));
    const sun = new THREE.DirectionalLight(0xffffff, 0.6);
    sun.position.set(-1, 1.2, -1); // from the north-west
    this.scene.add(sun);
    const text = figure.querySelector(".glb").textContent;
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    new THREE.GLTFLoader().parse(
      bytes.buffer,
      "",
      (file) => this.#show(file.scene),
      () => this.#fail("The surface cannot be read."),
    );
  }

  #fail(words) {
    const problem = this.figure.querySelector(".problem");
    problem.textContent = words;
    problem.hidden = false;
  }

  #show(model) {
    this.model = model;
    this.scene.add(model);
    const relief = model.getObjectByName("relief") ?? model;
    const box = new THREE.Box3().setFromObject(relief);
    this.middle = box.getCenter(new THREE.Vector3());
    this.side = Math.max(box.max.x - box.min.x, box.max.z - box.min.z);
    this.camera.near = this.side / 1000;
    this.camera.far = this.side * 20;
    this.#listen();
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
    this.reset();
    this.exaggerate();
    this.#resize();
    this.figure.dataset.state = "ready";
  }

  /* Seen from the south and from above, as a map is read. */
  reset() {
    this.stop();
    Object.assign(this, { azimuth: 0, elevation: 0.75, distance: 1.25 * this.side, shift: new THREE.Vector3(0, 0, 0.05 * this.side) });
    this.draw();
  }

  exaggerate() {
    const factor = ReliefView.#MOST ** ((this.slider.value - 50) / 50);
    this.model.scale.y = factor;
    const words = `${factor.toFixed(factor < 1 ? 2 : 1)}`;
    const output = this.figure.querySelector("output");
    output.textContent = this.figure.dataset.trueScale && this.slider.value === "50" ? `${words} (true)` : words;
    this.draw();
  }

  stop() {
    this.flying = false;
    this.fly.textContent = "Fly";
    this.fly.setAttribute("aria-pressed", "false");
  }

  #start() {
    this.flying = true;
    this.before = null;
    this.fly.textContent = "Stop";
    this.fly.setAttribute("aria-pressed", "true");
    this.draw();
  }

  #listen() {
    const { canvas } = this;
    const fingers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
      this.stop();
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const [right, down] = [event.clientX - last.clientX, event.clientY - last.clientY];
      if (fingers.size === 2) {
        const [other] = [...fingers.values()].filter((one) => one.pointerId !== event.pointerId);
        const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        this.zoom(apart(last) / Math.max(apart(event), 1));
      } else if (event.shiftKey || event.buttons === 2) this.#move(right, down);
      else this.turn(-right / 200, down / 200);
      fingers.set(event.pointerId, event);
    });
    for (const kind of ["pointerup", "pointercancel"])
      canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(1.001 ** event.deltaY);
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
      if (event.key in turns) this.turn(...turns[event.key]);
      else if (event.key === "+") this.zoom(0.9);
      else if (event.key === "-") this.zoom(1.1);
      else return;
      event.preventDefault();
    });
    this.slider.addEventListener("input", () => this.exaggerate());
    this.fly.addEventListener("click", () => (this.flying ? this.reset() : this.#start()));
    this.figure.querySelector(".reset").addEventListener("click", () => this.reset());
  }

  turn(azimuth, elevation) {
    this.stop();
    this.azimuth += azimuth;
    this.elevation = Math.max(0.05, Math.min(Math.PI / 2 - 0.01, this.elevation + elevation));
    this.draw();
  }

  zoom(factor) {
    this.stop();
    this.distance = Math.max(this.side / 50, Math.min(5 * this.side, this.distance * factor));
    this.draw();
  }

  #move(right, down) {
    const step = this.distance / this.canvas.clientHeight;
    const [sine, cosine] = [Math.sin(this.azimuth), Math.cos(this.azimuth)];
    this.shift.x -= step * (right * cosine + down * sine);
    this.shift.z -= step * (down * cosine - right * sine);
    this.draw();
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame((now) => {
      this.waiting = false;
      this.#place(now);
      this.renderer.render(this.scene, this.camera);
      const ahead = this.camera.getWorldDirection(new THREE.Vector3());
      this.needle.setAttribute("transform", `rotate(${(Math.atan2(-ahead.x, -ahead.z) * 180) / Math.PI})`);
      if (this.flying) this.draw();
    });
  }

  #place(now) {
    if (this.flying) {
      this.time += this.before === null ? 0 : (now - this.before) / 1000;
      this.before = now;
      const share = (this.time / ReliefView.#SECONDS_A_FLIGHT) % 1;
      this.camera.position.copy(this.#along(this.path.eyes, share));
      this.camera.lookAt(this.#along(this.path.targets, share));
      this.figure.dataset.flown = share.toFixed(4);
      return;
    }
    const target = this.middle.clone().setY(this.middle.y * this.model.scale.y).add(this.shift);
    const level = Math.cos(this.elevation) * this.distance;
    this.camera.position.set(
      target.x + level * Math.sin(this.azimuth),
      target.y + Math.sin(this.elevation) * this.distance,
      target.z + level * Math.cos(this.azimuth),
    );
    this.camera.lookAt(target);
  }

  /* A place on a closed path, between two of its points; heights go with those of the surface. */
  #along(places, share) {
    const at = share * places.length;
    const [one, other] = [Math.floor(at), Math.floor(at) + 1].map((number) => places[number % places.length]);
    const place = new THREE.Vector3(...one).lerp(new THREE.Vector3(...other), at % 1);
    return place.setY(place.y * this.model.scale.y);
  }
}

document.querySelectorAll("figure.relief").forEach((figure) => new ReliefView(figure));
